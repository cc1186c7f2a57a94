//! From the configuration to what clients may use of a relay.

use mesh_config::sections::DerpLimits;
use mesh_derp::Rate;
use mesh_relay::Limits;

/// The limits as configured; a burst that is not said is what comes in a second.
pub(crate) fn limits(settings: &DerpLimits) -> Limits {
    let rate = |per_second: Option<u32>, burst: Option<u32>| {
        let per_second = per_second?;
        let burst = burst.unwrap_or(per_second);
        Some(Rate { per_second: per_second.into(), burst: burst.into() })
    };
    Limits {
        pre_login_max: settings.pre_login_max,
        accept: rate(settings.accepts_per_second, settings.accept_burst),
        client: rate(settings.client_bytes_per_second, settings.client_burst_bytes),
        write_timeout: settings.write_timeout,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mesh_config::Config;

    use super::*;

    #[test]
    fn what_is_not_limited_is_as_the_relay_has_it_by_itself() {
        let settings = Config::defaults(Path::new("/data")).derp.server.limits;
        assert_eq!(limits(&settings), Limits::default());
        let settings = DerpLimits { accepts_per_second: Some(7), accept_burst: None, ..settings };
        assert_eq!(limits(&settings).accept, Some(Rate { per_second: 7, burst: 7 }));
        let settings = DerpLimits { accept_burst: Some(9), ..settings };
        assert_eq!(limits(&settings).accept, Some(Rate { per_second: 7, burst: 9 }));
    }
}
