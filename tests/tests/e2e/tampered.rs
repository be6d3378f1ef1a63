//! What no list shows, changed behind the gateway's back: `verify` tells of it, real packets are dropped again, and what
//! was done while no gateway ran does not outlive the next start.

use aya::maps::{Array, Map, MapData};
use gateway_common::ABI_VERSION;
use gateway_common::tables::{Settings, names};

use super::*;

const SIZE: usize = size_of::<Settings>();

fn array<V: aya::Pod>(stage: &Stage, name: &str) -> Result<Array<MapData, V>> {
    let pin = stage.home.pins().join(format!("v{ABI_VERSION}/{name}"));
    Ok(Map::Array(MapData::from_pin(pin)?).try_into()?)
}

fn wipe_settings(stage: &Stage, bytes: std::ops::Range<usize>) -> Result<()> {
    let mut settings = array::<[u8; SIZE]>(stage, names::SETTINGS)?;
    for copy in 0..2 {
        let mut value = settings.get(&copy, 0)?;
        value[bytes.clone()].fill(0);
        settings.set(copy, value, 0)?;
    }
    Ok(())
}

fn wipe_ranges(stage: &Stage) -> Result<()> {
    let mut ranges = array::<[u64; 2]>(stage, names::RANGES4)?;
    let half = ranges.len() / 2;
    for index in (0..8).chain(half..half + 8) {
        ranges.set(index, [0; 2], 0)?;
    }
    Ok(())
}

/// Whether both denied clients are shut out: one by its address, one by its network.
fn shut_out(stage: &Stage) -> Result<bool> {
    let status = |client| stage.wire.status(client, URL, GOOD);
    Ok((status(A)?, status(B)?) == (Err(28), Err(28)))
}

#[test]
fn keys_layout_and_ranges_are_compared_and_repaired() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2, 10.77.0.3/31]", "1m", ""))?;
    let gateway = stage.start()?;
    ensure!(shut_out(&stage)?, "not filtered to begin with");
    for (bytes, part) in [
        (16..32, "limiter's key"),
        (32..64, "key of single addresses"),
        (64..128, "layout"),
        (0..SIZE, "layout"),
    ] {
        wipe_settings(&stage, bytes.clone())?;
        let text = stage.expect(1, &["verify"])?;
        ensure!(
            text.contains(part) && !text.contains("NOT repaired"),
            "{bytes:?}: {text}"
        );
        ensure!(shut_out(&stage)?, "{bytes:?}: repaired, and yet they pass");
        stage.expect(0, &["verify"])?;
    }
    wipe_ranges(&stage)?;
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    let text = stage.expect(1, &["verify"])?;
    ensure!(
        text.contains("1 found, 1 repaired") && text.contains("ranges"),
        "{text}"
    );
    ensure!(shut_out(&stage)?, "the ranges are still empty");
    stage.expect(0, &["verify"])?;

    // Nor does a start adopt it.
    let mut gateway = gateway;
    let tampered: [fn(&Stage) -> Result<()>; 3] = [
        |stage| wipe_settings(stage, 32..64),
        |stage| wipe_settings(stage, 0..SIZE),
        wipe_ranges,
    ];
    for (case, tamper) in tampered.into_iter().enumerate() {
        ensure!(gateway.signal(Signal::KILL)?.is_none());
        tamper(&stage)?;
        gateway = stage.start()?;
        ensure!(shut_out(&stage)?, "adopted with the hole: case {case}");
        stage.expect(0, &["verify"])?;
    }
    gateway.wait_for_log("drift: the ranges that packets are looked up in")?;
    Ok(())
}
