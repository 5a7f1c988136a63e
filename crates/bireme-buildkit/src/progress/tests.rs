//! What readers of a build's progress are shown.

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use futures::StreamExt as _;

use super::*;

/// All that is shown to a reader until the build ends.
async fn read(progress: &Progress) -> Vec<StatusResponse> {
    let all = progress.follow().collect();
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the stream ends when the build does")
}

fn logs(news: &[StatusResponse]) -> Vec<u8> {
    news.iter().flat_map(|news| &news.logs).flat_map(|log| log.msg.clone()).collect()
}

#[tokio::test]
async fn readers_before_during_and_after_see_how_it_ended() {
    let progress = Progress::new();
    let before = tokio::spawn({
        let progress = progress.clone();
        async move { read(&progress).await }
    });
    tokio::task::yield_now().await;
    let first = progress.vertex("first", &[]);
    let second = progress.vertex("second", &[&first]);
    first.start();
    first.log(LogStream::Stdout, b"one\n");
    let during = tokio::spawn({
        let progress = progress.clone();
        async move { read(&progress).await }
    });
    tokio::time::sleep(GATHER * 2).await;
    first.log(LogStream::Stderr, b"two\n");
    first.complete();
    let task = second.task("transferring");
    task.set(5, 10);
    task.done();
    second.fail("no");
    progress.warn(Some(&second), Warning { short: "careful".to_owned(), ..Warning::default() });
    progress.end();
    for news in [before.await.unwrap(), during.await.unwrap(), read(&progress).await] {
        assert_eq!(logs(&news), b"one\ntwo\n");
        let last =
            |digest: &str| news.iter().flat_map(|news| &news.vertexes).rfind(|vertex| vertex.digest == digest).unwrap();
        assert!(last(first.digest()).completed.is_some() && last(first.digest()).error.is_empty());
        assert_eq!(last(second.digest()).error, "no");
        assert_eq!(last(second.digest()).inputs, [first.digest()]);
        let status = news.iter().flat_map(|news| &news.statuses).next_back().unwrap();
        assert_eq!((status.current, status.total, status.completed.is_some()), (5, 10, true));
        assert_eq!(news.iter().map(|news| news.warnings.len()).sum::<usize>(), 1);
    }
}

#[tokio::test]
async fn what_is_at_work_when_the_build_ends_was_given_up() {
    let progress = Progress::new();
    let (started, waiting) = (progress.vertex("started", &[]), progress.vertex("waiting", &[]));
    started.start();
    progress.end();
    progress.end();
    started.complete();
    started.log(LogStream::Stdout, b"late");
    progress.vertex("late", &[]).start();
    let news = read(&progress).await;
    let of = |digest: &str| news.iter().flat_map(|news| &news.vertexes).find(|vertex| vertex.digest == digest).cloned();
    assert_eq!(of(started.digest()).unwrap().error, "context canceled");
    assert!(of(waiting.digest()).unwrap().started.is_none());
    assert!(logs(&news).is_empty());
    assert_eq!(news.iter().map(|news| news.vertexes.len()).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_reader_that_was_slow_skips_what_was_overtaken() {
    let progress = Progress::new();
    let vertex = progress.vertex("copy", &[]);
    vertex.start();
    let task = vertex.task("bytes");
    for current in 0..100_000 {
        task.set(current, 100_000);
    }
    progress.end();
    let news = read(&progress).await;
    let statuses: Vec<_> = news.iter().flat_map(|news| &news.statuses).collect();
    assert_eq!((statuses.len(), statuses[0].current), (1, 99_999));
}

#[tokio::test]
async fn output_is_kept_up_to_a_limit_and_says_so() {
    let progress = Progress::new();
    let vertex = progress.vertex("noisy", &[]);
    for _ in 0..5 {
        vertex.log(LogStream::Stdout, &vec![b'x'; 1 << 20]);
    }
    vertex.log(LogStream::Stdout, b"more");
    progress.end();
    let news = read(&progress).await;
    let text = logs(&news);
    assert!(text.ends_with(b"[output clipped, log limit reached]\n"));
    assert_eq!(text.iter().filter(|byte| **byte == b'x').count(), state::MAX_LOG);
    let largest = news.iter().map(|news| news.logs.iter().map(|log| log.msg.len()).sum::<usize>()).max().unwrap();
    assert!(largest <= 1 << 20, "a message has {largest} bytes of output");
}

#[tokio::test]
async fn a_build_of_many_steps_comes_in_messages_of_bounded_size_in_order() {
    let progress = Progress::new();
    let all: Vec<_> = (0..3_500).map(|index| progress.vertex(&format!("step {index}"), &[])).collect();
    all[3_499].log(LogStream::Stdout, b"done");
    progress.end();
    let news = read(&progress).await;
    let names: Vec<_> = news.iter().flat_map(|news| &news.vertexes).map(|vertex| vertex.name.clone()).collect();
    assert_eq!(names, (0..3_500).map(|index| format!("step {index}")).collect::<Vec<_>>());
    assert!(news.iter().all(|news| news.vertexes.len() <= 1_000));
    // Of a vertex that clients know by then.
    assert!(news.iter().position(|news| !news.logs.is_empty()) >= Some(3));
}
