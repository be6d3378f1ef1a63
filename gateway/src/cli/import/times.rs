//! Ends of entries as lists write them. Pure.

use crate::cli::args::LONGEST_TTL;
use crate::config::units;

pub use crate::config::moment::moment;

/// The end of what lasts `text` from now, which is seconds or has a unit, such as `10m`.
pub fn after(text: &str, now_ms: u64) -> Result<u64, String> {
    let ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => {
            let ttl = units::duration(text).map_err(|fault| fault.to_string())?;
            u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
        }
    };
    if ms > u64::try_from(LONGEST_TTL.as_millis()).unwrap_or(u64::MAX) {
        return Err(format!(
            "{text:?} is more than 3000d, further than the kernel's tables count"
        ));
    }
    Ok(now_ms.saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_counts_from_now() {
        assert_eq!(after("90", 1_000), Ok(91_000));
        assert_eq!(after("10m", 0), Ok(600_000));
        assert!(after("x", 0).is_err());
    }
}
