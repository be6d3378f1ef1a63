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

fn shut_out(stage: &Stage) -> Result<bool> {
    Ok(stage.wire.status(A, URL, GOOD)? == Err(28))
}

/// Starts again after `tamper` was done to tables that no gateway looked after.
fn restart(stage: &Stage, gateway: Gateway, tamper: impl Fn(&Stage) -> Result<()>) -> Result<Gateway> {
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    tamper(stage)?;
    let gateway = stage.start()?;
    ensure!(shut_out(stage)?, "adopted with the hole");
    stage.expect(0, &["verify"])?;
    Ok(gateway)
}

#[test]
fn keys_and_layout_are_compared_and_put_back() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2, 203.0.113.0/24]", "1m", ""))?;
    let mut gateway = stage.start()?;
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
    for bytes in [32..64, 64..128, 0..SIZE] {
        gateway = restart(&stage, gateway, |stage| wipe_settings(stage, bytes.clone()))?;
    }
    Ok(())
}

#[test]
fn the_ranges_of_networks_are_compared_and_made_anew() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2/31]", "1m", ""))?;
    let gateway = stage.start()?;
    ensure!(shut_out(&stage)?, "not filtered to begin with");
    wipe_ranges(&stage)?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    let text = stage.expect(1, &["verify"])?;
    ensure!(
        text.contains("1 found, 1 repaired") && text.contains("ranges"),
        "{text}"
    );
    ensure!(shut_out(&stage)?, "the ranges are still empty");
    stage.expect(0, &["verify"])?;
    let gateway = restart(&stage, gateway, wipe_ranges)?;
    gateway.wait_for_log("drift: the ranges that packets are looked up in")?;
    Ok(())
}
