//! What is told to systemd. Everything here does nothing where the process was not started by it.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd that the service is up.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that the service is on its way down.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Sets the line that `systemctl status` shows.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Tells systemd that the service is alive.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Returns how often [`alive`] must be called, if systemd watches: half of its time-out.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify systemd");
    }
}
