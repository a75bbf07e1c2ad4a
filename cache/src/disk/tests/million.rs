//! A volume of a million slices, made of heads and footers only, in a sparse file: how fast is it ready, and what does the index weigh?

use std::{fs::File, os::unix::fs::FileExt, time::Instant};

use super::{
    far::Tag,
    layout::{Class, Entry, Footer, Life, PAGE, SegmentHead, Superblock},
    state::State,
    *,
};
use crate::purge::Purges;

const SEGMENTS: u32 = 4096;
const SEGMENT_BYTES: u64 = 64 << 20;
/// 256 KiB and a head each.
const PAGES: u16 = 65;
const SLICES_PER_SEGMENT: u16 = 252;

#[tokio::test]
async fn a_million_slices_are_ready_in_about_a_second_and_weigh_less_than_32_bytes_each() {
    let mut rig = Rig::closed(IoChoice::Auto, &[8]);
    rig.config.segment_bytes = SEGMENT_BYTES;
    rig.config.devices[0].bytes = None;
    let state = State::open(&rig.config.state_dir, &Purges::default()).expect("opens");
    let file = File::create(&rig.config.devices[0].path).expect("made");
    file.set_len(layout::SEGMENTS_AT + u64::from(SEGMENTS) * SEGMENT_BYTES).expect("sparse");
    let (set, device) = (state.set().bytes(), [7; 16]);
    let formatted_at = SystemTime::now();
    let slice_bytes = u32::try_from(SLICE).expect("small");
    let superblock = Superblock { set, device, segment_bytes: SEGMENT_BYTES, segments: SEGMENTS, slice_bytes, formatted_at };
    file.write_all_at(&superblock.to_page(), 0).expect("written");
    for number in 0..SEGMENTS {
        let life = Life { device, sequence: u64::from(number) + 1 };
        let start = layout::SEGMENTS_AT + u64::from(number) * SEGMENT_BYTES;
        let class = if number % 4 == 0 { Class::Planned } else { Class::New };
        let head = SegmentHead { life, number, class };
        file.write_all_at(&head.to_page(), start).expect("written");
        let entry = |n: u16| {
            let hash = (u64::from(number) * u64::from(SLICES_PER_SEGMENT) + u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Entry { hash, page: 1 + n * PAGES, pages: PAGES, hits: 0, tag: Tag::of(hash, 0) }
        };
        let footer = Footer { life, oldest: 0, newest: 0, entries: (0..SLICES_PER_SEGMENT).map(entry).collect() }.to_bytes();
        file.write_all_at(&footer, start + SEGMENT_BYTES - footer.len() as u64).expect("written");
        assert_eq!(footer.len(), PAGE);
    }
    file.sync_all().expect("synced");
    drop((file, state));
    let (start, cpu) = (Instant::now(), process_cpu());
    rig.open().await.expect("opens");
    let (ready_after, cpu) = (start.elapsed(), process_cpu() - cpu);
    let stats = rig.disk().stats();
    let bytes_per_slice = stats.index_bytes as f64 / stats.slices as f64;
    println!(
        "{} slices ready after {ready_after:?}, CPU {cpu:?}, {bytes_per_slice:.1} bytes each, by {}",
        stats.slices, stats.io
    );
    assert_eq!(stats.slices, u64::from(SEGMENTS) * u64::from(SLICES_PER_SEGMENT));
    assert_eq!(stats.devices[0].bytes_planned, u64::from(SEGMENTS) / 4 * SEGMENT_BYTES);
    assert!(bytes_per_slice <= 32.0);
    // Under a second on an idle machine; tests share theirs, some also their process.
    assert!(ready_after.min(cpu) < Duration::from_secs(5), "{ready_after:?}, CPU {cpu:?}");
}

fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the time.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
