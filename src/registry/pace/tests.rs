//! Permits: who waits for what. Time stands still unless everybody waits.

use super::limit::Sign;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const GONE: Report = Report {
    sign: Sign::Nothing,
    server: Server::Gone,
    hold_for: None,
};
const ANSWERED: Report = Report::of_answer(Duration::from_millis(1), None);

fn pace(concurrency_max: usize) -> Arc<Pace> {
    let options = PaceOptions {
        concurrency_max,
        breaker: BreakerOptions {
            operations_min: 2,
            silence_min: Duration::ZERO,
            ..BreakerOptions::default()
        },
        ..PaceOptions::default()
    };
    Arc::new(Pace::new(options, Duration::from_mins(1)))
}

/// Makes a request that ends at once.
async fn request(pace: &Arc<Pace>, operation: u64, report: Report) -> Result<(), Resting> {
    let mut permit = pace.enter(Kind::Reads, operation).await?;
    permit.settle(report);
    Ok(())
}

/// Opens the breaker. Returns until when.
async fn open(pace: &Arc<Pace>) -> Instant {
    for operation in 0..2 {
        request(pace, operation, GONE).await.unwrap();
    }
    request(pace, 0, ANSWERED).await.unwrap_err().until
}

#[tokio::test(start_paused = true)]
async fn nothing_of_any_kind_starts_before_the_server_wants_it() {
    let pace = pace(8);
    let start = Instant::now();
    let busy = |seconds| Report {
        sign: Sign::Refused,
        server: Server::There,
        hold_for: Some(SECOND * seconds),
    };
    // One that was sent before is still refused, and asks for less.
    let mut earlier = pace.enter(Kind::Reads, 0).await.unwrap();
    request(&pace, 1, busy(30)).await.unwrap();
    earlier.settle(busy(10));
    drop(earlier);
    for kind in Kind::ALL {
        drop(pace.enter(kind, 2).await.unwrap());
        assert_eq!(start.elapsed(), SECOND * 30, "{kind:?}");
    }
    request(&pace, 1, busy(100_000)).await.unwrap();
    request(&pace, 1, ANSWERED).await.unwrap();
    assert_eq!(start.elapsed(), SECOND * 30 + HOLD_MAX);
}

#[tokio::test(start_paused = true)]
async fn kinds_have_limits_of_their_own() {
    let pace = pace(1);
    let upload = pace.enter(Kind::Uploads, 0).await.unwrap();
    request(&pace, 1, ANSWERED).await.unwrap();
    let second = tokio::time::timeout(SECOND, pace.enter(Kind::Uploads, 0));
    assert!(second.await.is_err(), "one is in flight");
    drop(upload);
    pace.enter(Kind::Uploads, 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_fails_when_the_server_turns_out_to_be_gone() {
    let pace = pace(1);
    // An upload that hangs.
    let _hanging = pace.enter(Kind::Uploads, 7).await.unwrap();
    let waiting = pace.enter(Kind::Uploads, 8);
    let (failed, until) = tokio::join!(waiting, open(&pace));
    assert_eq!(failed.unwrap_err().until, until);
}

#[tokio::test(start_paused = true)]
async fn after_the_rest_one_request_goes_and_the_others_wait_for_it() {
    let pace = pace(8);
    let until = open(&pace).await;
    tokio::time::sleep_until(until).await;
    let mut probe = pace.enter(Kind::Manifests, 0).await.unwrap();
    let others = async { tokio::join!(request(&pace, 1, ANSWERED), request(&pace, 2, ANSWERED)) };
    let mut others = pin!(others);
    let early = tokio::time::timeout(SECOND, &mut others);
    assert!(early.await.is_err());
    probe.settle(ANSWERED);
    assert_eq!(others.await, (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_fails_the_others_and_one_that_is_dropped_makes_room() {
    let pace = pace(8);
    let until = open(&pace).await;
    tokio::time::sleep_until(until).await;
    let probe = pace.enter(Kind::Reads, 0).await.unwrap();
    drop(probe);
    let mut probe = pace.enter(Kind::Reads, 0).await.unwrap();
    let other = request(&pace, 1, ANSWERED);
    let failing = async {
        tokio::task::yield_now().await;
        probe.settle(GONE);
    };
    let (other, ()) = tokio::join!(other, failing);
    assert!(other.unwrap_err().until > until);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_gives_its_place_back() {
    let pace = pace(1);
    for _ in 0..100 {
        let permit = pace.enter(Kind::Reads, 0).await.unwrap();
        let waiting = tokio::time::timeout(SECOND, pace.enter(Kind::Reads, 1));
        assert!(waiting.await.is_err());
        drop(permit);
    }
    let state = pace.state("2026-11-21T00:00:00Z".parse().unwrap());
    let reads = state.kinds[0];
    assert_eq!((reads.limit, reads.in_flight, reads.waiting), (1, 0, 0));
}
