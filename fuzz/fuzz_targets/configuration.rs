//! The configuration file: TOML to checked values, and what is made of them later.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use violetd::base::Timestamp;
use violetd::config::Config;
use violetd::schedule::Schedule;

fuzz_target!(|text: &str| {
    let path = Path::new("/etc/violetd/violetd.toml");
    let config = match Config::parse(path, text, std::iter::empty()) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for risk in config.check_risks() {
        assert!(!format!("{risk:?}").is_empty());
    }
    let now: Timestamp = "2026-03-29T00:59:59Z".parse().expect("a time");
    for target in &config.targets {
        if let Ok(schedule) = Schedule::parse(&target.schedule, &target.time_zone) {
            let next = schedule.next_after(now);
            assert!(next.is_none_or(|next| next > now), "{next:?}");
            let latest = schedule.latest_before(now);
            assert!(latest.is_none_or(|latest| latest <= now), "{latest:?}");
        }
    }
});
