//! Formats and files of rank output.

use super::*;
use std::sync::mpsc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(90);

fn sinks(
    spec: Output,
    delivery: Delivery,
) -> (Sinks, mpsc::Receiver<SinkEvent>, mpsc::Receiver<crate::event::Sent>) {
    let (tx, rx) = mpsc::channel();
    let (events, stream) = Events::channel();
    let notify: Notify = Arc::new(move |event| drop(tx.send(event)));
    (Sinks::new(spec, delivery, Places::default(), notify, events), rx, stream)
}

fn chunk(text: &'static str) -> Chunk {
    Chunk { proc: ProcId::first(3), stream: Stream::Stdout, bytes: text.into() }
}

fn written(rx: &mpsc::Receiver<SinkEvent>) -> Option<u32> {
    match rx.recv_timeout(DEADLINE).ok()? {
        SinkEvent::Written { bytes, .. } => Some(bytes),
        SinkEvent::Failed { .. } => None,
    }
}

#[test]
fn credit_returns_when_the_embedder_has_taken_the_event() {
    let (mut sinks, credit, events) = sinks(Output::default(), Delivery::Events);
    sinks.put(chunk("hello\n"));
    assert!(credit.try_recv().is_err());
    let (event, receipt) = events.recv().unwrap();
    assert!(matches!(event, Event::Output { bytes, .. } if bytes == "hello\n"));
    assert!(credit.try_recv().is_err());
    drop(receipt);
    assert_eq!(written(&credit), Some(6));
}

#[test]
fn discarded_and_hidden_output_returns_its_credit_at_once() {
    let (mut discard, credit, _events) = sinks(Output::default(), Delivery::Discard);
    discard.put(chunk("hello\n"));
    assert_eq!(written(&credit), Some(6));
    let shown = Shown::Ranks(rmpi_types::RankSet::range(0, 1));
    let (mut hidden, credit, _events) = sinks(Output { shown, ..Output::default() }, Delivery::Inherit);
    hidden.put(chunk("hello\n"));
    assert_eq!(written(&credit), Some(6));
}

#[test]
fn an_embedder_that_left_does_not_hold_ranks_back() {
    let (mut sinks, credit, events) = sinks(Output::default(), Delivery::Events);
    sinks.put(chunk("a\n"));
    drop(events);
    assert_eq!(written(&credit), Some(2));
    sinks.put(chunk("abc\n"));
    assert_eq!(written(&credit), Some(4));
}

#[test]
fn files_take_every_byte_before_credit_returns_and_say_what_failed() {
    let root = std::env::temp_dir().join(format!("rmpi-sink-{}", std::process::id()));
    let kind = rmpi_types::spec::FileLayout::OpenMpi4 { dir: root.clone(), nojobid: false };
    let files = rmpi_types::spec::Files { layout: kind.clone(), nocopy: true };
    let spec = Output { files: Some(files), ..Output::default() };
    let (mut sinks, credit, _events) = sinks(spec, Delivery::Inherit);
    let layout = Layout::new(&kind, 4, false, 0, Places::default());
    layout.create((0..4).map(Rank)).unwrap();
    sinks.open_files(layout).unwrap();
    sinks.put(chunk("one\n"));
    assert_eq!(written(&credit), Some(4));
    assert_eq!(std::fs::read_to_string(root.join("1/rank.3/stdout")).unwrap(), "one\n");
    std::fs::remove_dir_all(&root).unwrap();
    sinks.put(Chunk { proc: ProcId::first(2), ..chunk("two\n") });
    let mut failed = None;
    let mut returned = 0;
    while failed.is_none() || returned == 0 {
        match credit.recv_timeout(DEADLINE).unwrap() {
            SinkEvent::Written { bytes, .. } => returned += bytes,
            SinkEvent::Failed { error, .. } => failed = Some(error.to_string()),
        }
    }
    assert!(failed.unwrap().contains("rank.2/stdout"));
    assert_eq!(returned, 4);
}
