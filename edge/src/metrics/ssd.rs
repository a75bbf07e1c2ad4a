//! The SSD tier for Prometheus. Labels are bounded: devices are configured, reasons are named in the code.

use cache::{DeviceState, DeviceStats, DiskStats, LATENCY_BOUNDS_US, Latency};
use prometheus::proto::{Bucket, Histogram};

use super::Page;

/// Writes all of it down.
pub(super) fn write(stats: &DiskStats, page: &mut Page) -> Result<(), prometheus::Error> {
    for (name, help, count) in [
        ("larder_edge_ssd_hits_total", "Slices that were looked for on devices and found.", stats.hits),
        ("larder_edge_ssd_misses_total", "Slices that were looked for on devices and not found.", stats.misses),
        (
            "larder_edge_ssd_rejected_total",
            "Slices that were found on a device but were not what was wanted: another version, purged, or not to be read.",
            stats.rejected,
        ),
        (
            "larder_edge_ssd_busy_total",
            "Slices that were found but not read, because their device had as much to do as may wait for it.",
            stats.busy,
        ),
        ("larder_edge_ssd_admitted_bytes_total", "Bytes of slices taken to be written.", stats.bytes_admitted),
        ("larder_edge_ssd_evictions_total", "Slices that left devices to make room.", stats.evictions),
        ("larder_edge_ssd_reinsertions_total", "Slices written again because they were still wanted.", stats.reinsertions),
        (
            "larder_edge_ssd_planned_again_total",
            "Slices that had come on demand and were written again as planned content.",
            stats.planned_again,
        ),
    ] {
        page.counter(name, help, count)?;
    }
    page.counters(
        "larder_edge_ssd_refused_total",
        "Slices that were not written, by reason.",
        ["reason"],
        stats.refused.iter().map(|(reason, count)| ([*reason], *count)),
    )?;
    for (name, help, value) in [
        ("larder_edge_ssd_slices", "Slices in the index now.", stats.slices),
        ("larder_edge_ssd_index_bytes", "Memory of the index now.", stats.index_bytes),
        ("larder_edge_ssd_queued_bytes", "Bytes of slices that wait to be written.", stats.bytes_queued),
        ("larder_edge_purges", "Purges that may still cover something.", stats.purges),
        ("larder_edge_doubts", "Objects whose slices on devices are asked about before they are believed.", stats.doubts),
    ] {
        page.gauge(name, help, value)?;
    }
    let amplification = stats.write_amplification();
    page.gauges(
        "larder_edge_ssd_write_amplification",
        "Bytes written to devices per byte of slices taken; none before the first.",
        [],
        amplification.into_iter().map(|ratio| ([], ratio)),
    )?;
    page.gauges("larder_edge_io_driver", "How devices are driven.", ["driver"], [([stats.io], 1.0)].into_iter())?;
    devices(&stats.devices, page)
}

/// A metric's name and help, and its value for one device.
type Figure = (&'static str, &'static str, fn(&DeviceStats) -> u64);

fn devices(devices: &[DeviceStats], page: &mut Page) -> Result<(), prometheus::Error> {
    let names: Vec<String> = devices.iter().map(|device| device.path.display().to_string()).collect();
    let each = || names.iter().map(String::as_str).zip(devices);
    let figures: [Figure; 4] = [
        ("larder_edge_device_read_bytes_total", "Bytes read.", |device| device.bytes_read),
        ("larder_edge_device_written_bytes_total", "Bytes written.", |device| device.bytes_written),
        ("larder_edge_device_errors_total", "Operations that failed.", |device| device.errors),
        (
            "larder_edge_device_corrupt_total",
            "Records and footers that were not what had been written, since the device was taken up.",
            |device| device.corrupt,
        ),
    ];
    for (name, help, figure) in figures {
        page.counters(name, help, ["device"], each().map(|(path, device)| ([path], figure(device))))?;
    }
    let figures: [Figure; 6] = [
        ("larder_edge_device_bytes", "Bytes that may be used.", |device| device.bytes),
        ("larder_edge_device_used_bytes", "Bytes in segments that hold something.", |device| device.bytes_used),
        ("larder_edge_device_planned_bytes", "Bytes in segments of planned content.", |device| device.bytes_planned),
        ("larder_edge_device_segments", "Segments.", |device| device.segments),
        ("larder_edge_device_depth", "Operations under way.", |device| device.depth),
        ("larder_edge_device_given_up", "1 where the device failed and is left alone until an operator restores it.", |device| {
            u64::from(matches!(device.state, DeviceState::GivenUp { .. }))
        }),
    ];
    for (name, help, figure) in figures {
        page.gauges(name, help, ["device"], each().map(|(path, device)| ([path], figure(device) as f64)))?;
    }
    page.histograms(
        "larder_edge_device_read_seconds",
        "How long reads took.",
        "device",
        each().map(|(path, device)| (path, histogram(&device.reads))),
    );
    page.histograms(
        "larder_edge_device_write_seconds",
        "How long writes took.",
        "device",
        each().map(|(path, device)| (path, histogram(&device.writes))),
    );
    Ok(())
}

fn histogram(latency: &Latency) -> Histogram {
    const US_PER_S: f64 = 1e6;
    let mut below = 0;
    let buckets = LATENCY_BOUNDS_US.iter().zip(&latency.buckets).map(|(bound_us, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound_us as f64 / US_PER_S);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(latency.count());
    histogram.set_sample_sum(latency.sum_us as f64 / US_PER_S);
    histogram
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::SystemTime;

    use super::*;

    /// A tier of two devices, one of them given up, with another number in each place.
    pub(crate) fn two_devices() -> DiskStats {
        let mut reads = Latency::default();
        reads.buckets[0] = 2;
        reads.buckets[2] = 1;
        reads.buckets[LATENCY_BOUNDS_US.len()] = 1;
        reads.sum_us = 10_000_000;
        let device = DeviceStats {
            path: "/dev/a".into(),
            state: DeviceState::Serving,
            bytes: 100,
            bytes_used: 90,
            bytes_planned: 80,
            segments: 7,
            depth: 6,
            bytes_read: 5,
            bytes_written: 30,
            reads,
            writes: Latency::default(),
            errors: 3,
            corrupt: 2,
        };
        let given_up = DeviceState::GivenUp { reason: "EIO".into(), since: SystemTime::UNIX_EPOCH };
        let other = DeviceStats { path: "/c/b".into(), state: given_up, ..device.clone() };
        DiskStats {
            io: "threads",
            slices: 1,
            index_bytes: 2,
            hits: 3,
            misses: 4,
            bytes_hit: 5,
            rejected: 6,
            busy: 9,
            bytes_admitted: 40,
            refused: vec![("queue", 8), ("admission", 9)],
            evictions: 10,
            reinsertions: 11,
            planned_again: 15,
            bytes_queued: 12,
            purges: 13,
            doubts: 14,
            devices: vec![device, other],
        }
    }

    #[test]
    fn all_that_the_tier_tells_is_on_the_page() {
        let mut page = Page::default();
        write(&two_devices(), &mut page).unwrap();
        let text = page.text().unwrap();
        for line in [
            "larder_edge_ssd_hits_total 3",
            "larder_edge_ssd_misses_total 4",
            "larder_edge_ssd_rejected_total 6",
            "larder_edge_ssd_busy_total 9",
            "larder_edge_ssd_admitted_bytes_total 40",
            "larder_edge_ssd_refused_total{reason=\"queue\"} 8",
            "larder_edge_ssd_refused_total{reason=\"admission\"} 9",
            "larder_edge_ssd_evictions_total 10",
            "larder_edge_ssd_reinsertions_total 11",
            "larder_edge_ssd_planned_again_total 15",
            "larder_edge_ssd_slices 1",
            "larder_edge_ssd_index_bytes 2",
            "larder_edge_ssd_queued_bytes 12",
            "larder_edge_purges 13",
            "larder_edge_doubts 14",
            "larder_edge_ssd_write_amplification 1.5",
            "larder_edge_io_driver{driver=\"threads\"} 1",
            "larder_edge_device_given_up{device=\"/dev/a\"} 0",
            "larder_edge_device_given_up{device=\"/c/b\"} 1",
            "larder_edge_device_bytes{device=\"/c/b\"} 100",
            "larder_edge_device_used_bytes{device=\"/dev/a\"} 90",
            "larder_edge_device_planned_bytes{device=\"/dev/a\"} 80",
            "larder_edge_device_segments{device=\"/dev/a\"} 7",
            "larder_edge_device_depth{device=\"/dev/a\"} 6",
            "larder_edge_device_read_bytes_total{device=\"/dev/a\"} 5",
            "larder_edge_device_written_bytes_total{device=\"/dev/a\"} 30",
            "larder_edge_device_errors_total{device=\"/dev/a\"} 3",
            "larder_edge_device_corrupt_total{device=\"/dev/a\"} 2",
            "# TYPE larder_edge_device_read_seconds histogram",
            "larder_edge_device_read_seconds_bucket{device=\"/dev/a\",le=\"0.000032\"} 2",
            "larder_edge_device_read_seconds_bucket{device=\"/dev/a\",le=\"0.000064\"} 2",
            "larder_edge_device_read_seconds_bucket{device=\"/dev/a\",le=\"0.000128\"} 3",
            "larder_edge_device_read_seconds_bucket{device=\"/c/b\",le=\"8.388608\"} 3",
            "larder_edge_device_read_seconds_bucket{device=\"/dev/a\",le=\"+Inf\"} 4",
            "larder_edge_device_read_seconds_sum{device=\"/dev/a\"} 10",
            "larder_edge_device_write_seconds_count{device=\"/dev/a\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }
}
