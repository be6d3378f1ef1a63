//! One interface: is it there, can it be filtered natively, and what stands in the way.

use super::Check;
use super::ethtool::Device;
use crate::config::model::{Xdp, XdpMode};
use crate::dataplane::backend::removal;
use crate::dataplane::{Kernel, Unfiltered};

/// The longest frame that fits into one page with headroom and the kernel's tail, less the Ethernet header and two
/// tags. Most drivers refuse native mode beyond it for a program that does not take frames in pieces.
const LONGEST_MTU: u32 = 3_498;
/// What merges packets in hardware before the program sees them.
const MERGING: &[&str] = &["rx-lro", "rx-gro-hw"];
/// Drivers with native XDP in kernels since 5.15, as far as known; no word of theirs, so a guess.
const NATIVE: &[&str] = &[
    "atlantic",
    "bnxt_en",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "idpf",
    "igb",
    "igc",
    "ionic",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "nicvf",
    "qede",
    "sfc",
    "st_gmac",
    "stmmac",
    "tsnep",
    "tun",
    "veth",
    "vif",
    "virtio_net",
    "vmxnet3",
];

pub fn checks(name: &str, xdp: &Xdp) -> Vec<Check> {
    if nix::net::if_::if_nametoindex(name).is_err() {
        return vec![Check::fail(
            name,
            "there is no interface of this name",
            "`ip link` lists those that there are; mend xdp.interfaces, or leave it: it is filtered as soon as it is there",
        )];
    }
    let mut checks = vec![program(name, xdp)];
    let device = match Device::open(name) {
        Ok(device) => device,
        Err(error) => {
            checks.push(Check::warn(
                name,
                format!("can not be asked: {error}"),
                "look with `ethtool`",
            ));
            return checks;
        }
    };
    let driver = device.driver().unwrap_or_default();
    let native = NATIVE.contains(&driver.as_str());
    checks.push(mode(name, &driver, native, xdp.mode));
    if let Ok(mtu) = device.mtu() {
        checks.push(size(name, mtu, native && xdp.mode != XdpMode::Generic));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    checks.push(match device.channels() {
        Ok(channels) => queues(name, channels.now, channels.most, processors),
        Err(_) => Check::ok(format!("{name} queues"), "the driver does not tell"),
    });
    checks.push(match device.active(MERGING) {
        Ok(active) => merging(name, &active),
        Err(error) => Check::ok(
            format!("{name} offloads"),
            format!("the driver does not tell ({error})"),
        ),
    });
    checks
}

fn program(name: &str, xdp: &Xdp) -> Check {
    let title = format!("{name} program");
    match Kernel::look(&xdp.pin_dir, name) {
        Ok(attachment) => match attachment.unfiltered {
            None => Check::ok(
                title,
                format!("filtered by this gateway's program {}", attachment.program),
            ),
            Some(Unfiltered::Foreign { program, id }) => Check::fail(
                title,
                format!("another XDP program is on it: {program} (id {id})"),
                format!(
                    "two programs can not share an interface; remove it first: {}",
                    removal(name, &program)
                ),
            ),
            Some(_) => Check::ok(title, "no XDP program is on it"),
        },
        Err(error) => Check::warn(title, error.to_string(), "run `gateway doctor` as root"),
    }
}

fn mode(name: &str, driver: &str, native: bool, wanted: XdpMode) -> Check {
    let title = format!("{name} driver");
    let driver = if driver.is_empty() {
        "no driver named"
    } else {
        driver
    };
    match (native, wanted) {
        (_, XdpMode::Generic) => Check::ok(title, format!("{driver}; generic mode is configured")),
        (true, _) => Check::ok(title, format!("{driver}: native mode is likely")),
        (false, XdpMode::Native) => Check::warn(
            title,
            format!("{driver}: not known to have native mode, which is configured"),
            "`xdp.mode: auto` falls back to generic mode",
        ),
        (false, _) => Check::warn(
            title,
            format!("{driver}: generic mode is likely, which works and is slower"),
            "filter on the physical device rather than on one above it, where there is a choice",
        ),
    }
}

fn size(name: &str, mtu: u32, native: bool) -> Check {
    let title = format!("{name} MTU");
    if native && mtu > LONGEST_MTU {
        Check::warn(
            title,
            format!("{mtu}: most drivers refuse native mode for frames that do not fit into a page"),
            format!("`ip link set dev {name} mtu {LONGEST_MTU}` or less, or live with generic mode"),
        )
    } else {
        Check::ok(title, mtu.to_string())
    }
}

fn queues(name: &str, now: u32, most: u32, processors: usize) -> Check {
    let title = format!("{name} queues");
    let found = format!("{now} of {most}, {processors} processors");
    let wanted = u32::try_from(processors).unwrap_or(u32::MAX).min(most);
    if now < wanted {
        Check::warn(
            title,
            format!("{found}: some processors see no packet"),
            format!("`ethtool -L {name} combined {wanted}` (or `rx {wanted}`)"),
        )
    } else {
        Check::ok(title, found)
    }
}

fn merging(name: &str, active: &[&str]) -> Check {
    let title = format!("{name} offloads");
    if active.is_empty() {
        return Check::ok(title, "no packets are merged in hardware");
    }
    let switches: Vec<&str> = active
        .iter()
        .map(|feature| {
            if *feature == "rx-lro" {
                "lro off"
            } else {
                "rx-gro-hw off"
            }
        })
        .collect();
    Check::warn(
        title,
        format!(
            "{} merges packets before the program sees them, and may forbid native mode",
            active.join(" and ")
        ),
        format!("`ethtool -K {name} {}`", switches.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config::defaults;

    #[test]
    fn what_stands_in_the_way_of_native_mode_is_a_warning() {
        for (check, level) in [
            (size("eth0", 1_500, true), Level::Ok),
            (size("eth0", 9_000, true), Level::Warn),
            (size("lo", 65_536, false), Level::Ok),
            (queues("eth0", 4, 8, 4), Level::Ok),
            (queues("eth0", 1, 8, 4), Level::Warn),
            (queues("eth0", 1, 1, 64), Level::Ok),
            (merging("eth0", &[]), Level::Ok),
            (merging("eth0", &["rx-lro"]), Level::Warn),
            (mode("eth0", "ice", true, XdpMode::Auto), Level::Ok),
            (mode("eth0", "e1000", false, XdpMode::Auto), Level::Warn),
            (mode("eth0", "e1000", false, XdpMode::Native), Level::Warn),
            (mode("eth0", "e1000", false, XdpMode::Generic), Level::Ok),
        ] {
            assert_eq!(check.level, level, "{check:?}");
            assert_eq!(check.todo.is_some(), level != Level::Ok, "{check:?}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_a_failure() {
        let checks = checks("none0", &defaults::xdp());
        assert!(checks.len() == 1 && checks[0].level == Level::Fail, "{checks:?}");
    }
}
