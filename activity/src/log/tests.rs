//! The log on real files: order, torn ends at every byte, rot, retention, readers.

use std::fs;

use super::*;
use crate::{
    codec::Encoder,
    event::{Event, Kind, Name},
};

const NOW_MS: u64 = 1_795_254_355_700;
const SEGMENT_BYTES: u64 = 2048;

/// The payload of a frame whose events are called by their numbers.
fn payload(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut encoder = Encoder::new(NOW_MS, 0);
    for number in numbers {
        let id = number.to_string();
        encoder.put(&Event { id: Name::Text(&id), ..Event::of(Kind::Like, NOW_MS) });
    }
    let mut payload = Vec::new();
    encoder.finish().put(&mut payload);
    payload
}

fn open(folder: &Path) -> (Log, Recovered) {
    Log::open(folder, SEGMENT_BYTES, NOW_MS).unwrap()
}

fn append(log: &mut Log, events: u32) {
    let first = log.newest();
    log.append(&payload(first..first + u64::from(events)), events, NOW_MS).unwrap();
}

/// The numbers of all events from `place`, which are called by them, and how many were lost.
fn read(log: &Log, place: u64) -> (Vec<u64>, u64) {
    let mut reader = Reader::new(log.folder().to_owned(), place);
    let mut numbers = Vec::new();
    while let Some(frame) = reader.next(log.progress().now()).unwrap() {
        frame
            .each(|number, event| {
                assert_eq!(event.id.to_string(), number.to_string());
                numbers.push(number);
            })
            .unwrap();
    }
    assert_eq!(reader.place(), log.newest().max(place));
    (numbers, reader.lost())
}

#[test]
fn events_are_read_in_order_from_any_place_across_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let (mut log, recovered) = open(dir.path());
        assert_eq!(recovered, Recovered::default());
        assert_eq!(log.newest(), round * 100);
        (0..25).for_each(|_| append(&mut log, 4));
    }
    let (log, _) = open(dir.path());
    assert!(log.segments_count() > 2);
    assert_eq!(read(&log, 0), ((0..400).collect(), 0));
    for place in [1, 4, 7, 100, 396, 399] {
        // A frame is read whole.
        assert_eq!(read(&log, place), ((place / 4 * 4..400).collect(), 0), "{place}");
    }
    assert_eq!(read(&log, 400), (vec![], 0));
}

#[test]
fn an_end_that_is_torn_at_any_byte_is_cut_and_what_was_synced_before_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, 3);
    append(&mut log, 2);
    let path = segment::path(dir.path(), 0);
    let before = fs::metadata(&path).unwrap().len();
    append(&mut log, 4);
    drop(log);
    let whole = fs::read(&path).unwrap();
    for length in before..whole.len() as u64 {
        // What the file system gave room for and nobody wrote may be zeroes, or what stood there long ago.
        for rest in [None, Some(0), Some(0xa5)] {
            let mut torn = whole[..length as usize].to_vec();
            torn.extend(rest.map(|byte| vec![byte; whole.len() - length as usize]).unwrap_or_default());
            if torn == whole {
                continue;
            }
            fs::write(&path, &torn).unwrap();
            let (mut log, recovered) = open(dir.path());
            assert_eq!((log.newest(), recovered.cut_bytes), (5, torn.len() as u64 - before), "{length} {rest:?}");
            append(&mut log, 1);
            assert_eq!(read(&log, 0), ((0..6).collect(), 0));
        }
    }
}

#[test]
fn a_segment_whose_making_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    append(&mut log, 3);
    log.roll().unwrap();
    drop(log);
    let path = segment::path(dir.path(), 3);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (mut log, recovered) = open(dir.path());
        assert_eq!((log.newest(), recovered.cut_bytes), (3, length as u64));
        log.roll().unwrap();
        append(&mut log, 1);
        assert_eq!(read(&log, 0).0, [0, 1, 2, 3]);
        drop(log);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_frame_that_rotted_is_passed_over_and_counted_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    (0..60).for_each(|_| append(&mut log, 5));
    drop(log);
    let firsts = segment::list(dir.path()).unwrap();
    let rot = |first: u64, at: u64| {
        let path = segment::path(dir.path(), first);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at as usize] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let last = *firsts.last().unwrap();
    let (in_head, in_payload) = (HEADER_BYTES + 1, HEADER_BYTES + HEAD_BYTES as u64 + 3);
    for in_open in [in_head, in_payload] {
        let bits = [(firsts[0], in_payload), (firsts[1], in_head), (last, in_open)];
        bits.into_iter().for_each(|(first, at)| rot(first, at));
        let (log, recovered) = open(dir.path());
        assert_eq!((log.newest(), recovered.cut_bytes), (300, 0), "what stands before a whole frame is not a torn end");
        let expected: Vec<u64> = (5..firsts[1]).chain(firsts[1] + 5..last).chain(last + 5..300).collect();
        assert_eq!(read(&log, 0), (expected, 15));
        // As they were.
        bits.into_iter().for_each(|(first, at)| rot(first, at));
    }
    let (mut log, _) = open(dir.path());
    append(&mut log, 5);
    assert_eq!(read(&log, 0), ((0..305).collect(), 0));
}

#[test]
fn a_head_that_rotted_at_the_end_of_a_long_segment_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), 8 << 20, NOW_MS).unwrap();
    // Frames that are longer than what is looked through at a time.
    let frame = |log: &mut Log| {
        let first = log.newest();
        let padding = vec![payload(first..first + 1); 60_000].concat();
        log.append(&padding, 60_000, NOW_MS).unwrap();
    };
    (0..3).for_each(|_| frame(&mut log));
    let frame_bytes = (log.bytes() - HEADER_BYTES) / 3;
    assert!(frame_bytes > 1 << 20, "{frame_bytes}");
    drop(log);
    let path = segment::path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[(HEADER_BYTES + frame_bytes) as usize + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (log, recovered) = Log::open(dir.path(), 8 << 20, NOW_MS).unwrap();
    assert_eq!((log.newest(), recovered.cut_bytes), (180_000, 0));
    let mut reader = Reader::new(dir.path().to_owned(), 0);
    let mut firsts = Vec::new();
    while let Some(frame) = reader.next(log.progress().now()).unwrap() {
        firsts.push(frame.head.first);
    }
    assert_eq!((firsts, reader.lost()), (vec![0, 120_000], 60_000));
}

#[test]
fn only_closed_segments_that_nobody_needs_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    (0..60).for_each(|_| append(&mut log, 5));
    let firsts = segment::list(dir.path()).unwrap();
    let keep = |age_max, bytes_max| Retention { age_max: Duration::from_secs(age_max), bytes_max };
    log.forget(300, keep(3600, u64::MAX), NOW_MS).unwrap();
    assert_eq!(log.oldest(), 0, "none is old");
    log.forget(firsts[2] - 1, keep(3600, 0), NOW_MS).unwrap();
    assert_eq!(log.oldest(), firsts[1], "the second is needed");
    log.forget(300, keep(3600, u64::MAX), NOW_MS + 3_600_001).unwrap();
    assert_eq!(log.oldest(), *firsts.last().unwrap(), "the open one stays");
    let newest = log.newest();
    assert_eq!(read(&log, 0), ((log.oldest()..newest).collect(), log.oldest()));
    drop(log);
    let (log, _) = open(dir.path());
    assert_eq!((log.oldest(), log.newest()), (*firsts.last().unwrap(), newest));
}

#[test]
fn files_that_are_not_ours_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = segment::path(dir.path(), 0);
    let good = fs::read(&path).unwrap();
    fs::write(&path, "x".repeat(100)).unwrap();
    let refused = || Log::open(dir.path(), SEGMENT_BYTES, NOW_MS).unwrap_err().to_string();
    assert!(refused().contains("is not a segment of the activity log"), "{}", refused());
    let mut newer = good.clone();
    newer[8] = 2;
    fs::write(&path, newer).unwrap();
    assert!(refused().contains("has version 2 of the activity log"), "{}", refused());
    fs::write(&path, good).unwrap();
    drop(open(dir.path()));
}

#[test]
fn time_in_the_log_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for now_ms in [NOW_MS + 5, NOW_MS, NOW_MS + 9] {
        let first = log.newest();
        log.append(&payload(first..first + 1), 1, now_ms).unwrap();
    }
    drop(log);
    let (mut log, _) = Log::open(dir.path(), SEGMENT_BYTES, 0).unwrap();
    log.append(&payload(3..4), 1, 0).unwrap();
    let mut reader = Reader::new(dir.path().to_owned(), 0);
    let mut times = Vec::new();
    while let Some(frame) = reader.next(log.progress().now()).unwrap() {
        times.push(frame.head.written_ms - NOW_MS);
    }
    assert_eq!(times, [5, 5, 9, 9]);
}

#[test]
fn a_reader_waits_for_what_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let progress = log.progress();
    let waiting = std::thread::spawn(move || progress.wait(Duration::from_secs(60), |synced| synced.newest >= 3).newest);
    append(&mut log, 3);
    assert_eq!(waiting.join().unwrap(), 3);
    let progress = log.progress();
    let waiting = std::thread::spawn(move || progress.wait(Duration::from_secs(60), |synced| synced.newest >= 99).newest);
    log.progress().stop();
    assert_eq!(waiting.join().unwrap(), 3);
}
