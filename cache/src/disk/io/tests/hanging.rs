//! Devices that hang, and devices that do things by halves.

use parking_lot::Condvar;

use super::*;

#[tokio::test]
async fn a_device_that_hangs_takes_no_places_from_others() {
    let bench = Bench::by_ring(true);
    let mut pipe = Pipe::new(&bench);
    let device = bench.device("device", RECORD);
    let mut hanging = JoinSet::new();
    for _ in 0..2 * registered::DEPTH_MAX {
        let (io, device) = (bench.io.clone(), pipe.device.clone());
        hanging.spawn(async move { io.read(&device, 0, IoBuf::zeroed(UNIT_BYTES)).await });
    }
    tokio::task::yield_now().await;
    until(|| pipe.device.counts().depth == 2 * registered::DEPTH_MAX as u64).await;
    for _ in 0..20 {
        soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("the other one works");
    }
    for _ in 0..2 * registered::DEPTH_MAX {
        pipe.answer();
        let buf = soon(hanging.join_next()).await.expect("one more").expect("no panic").expect("it was answered");
        assert!(buf.as_slice() == [5; UNIT_BYTES]);
    }
    assert_eq!(pipe.device.counts().depth, 0);
}

/// Hangs until it is let go.
#[derive(Default)]
struct Hanging {
    is_let_go: Mutex<bool>,
    changed: Condvar,
}

impl Hanging {
    fn let_go(&self) {
        *self.is_let_go.lock() = true;
        self.changed.notify_all();
    }

    fn hang(&self) {
        let mut is_let_go = self.is_let_go.lock();
        while !*is_let_go {
            self.changed.wait(&mut is_let_go);
        }
    }
}

impl Medium for Hanging {
    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.hang();
        buf.fill(1);
        Ok(buf.len())
    }

    fn write_at(&self, _: u64, buf: &[u8]) -> io::Result<usize> {
        self.hang();
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.hang();
        Ok(())
    }
}

#[tokio::test]
async fn a_double_that_hangs_brakes_no_other_device() {
    let bench = Bench::by_threads();
    let medium = Arc::new(Hanging::default());
    let hanging = DeviceFile::double(medium.clone());
    let device = bench.device("device", RECORD);
    let mut under_way = JoinSet::new();
    for _ in 0..2 * threads::QUEUED_MAX {
        let (io, device) = (bench.io.clone(), hanging.clone());
        under_way.spawn(async move { io.read(&device, 0, IoBuf::zeroed(UNIT_BYTES)).await.map(drop) });
    }
    until(|| hanging.counts().depth == 2 * threads::QUEUED_MAX as u64).await;
    for _ in 0..20 {
        soon(bench.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("the other one works");
    }
    assert_eq!(hanging.counts().reads.count(), 0);
    medium.let_go();
    assert!(soon(under_way.join_all()).await.iter().all(Result::is_ok));
    assert_eq!(hanging.counts().depth, 0);
}

/// Does part of what it is asked, and is interrupted in between.
#[derive(Default)]
struct Stuttering {
    bytes: Mutex<Vec<u8>>,
    asked: AtomicU64,
}

impl Stuttering {
    /// How much of `bytes` it does this time.
    fn part(&self, bytes: usize) -> io::Result<usize> {
        match self.asked.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => Err(ErrorKind::Interrupted.into()),
            1 => Err(ErrorKind::WouldBlock.into()),
            // Not a whole number of units: what is beyond them is done again.
            2 => Ok(bytes.min(5000)),
            _ => Ok(bytes.min(2 * UNIT_BYTES)),
        }
    }
}

impl Medium for Stuttering {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (at, part) = (at as usize, self.part(buf.len())?);
        buf[..part].copy_from_slice(&self.bytes.lock()[at..at + part]);
        Ok(part)
    }

    fn write_at(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        let (at, part) = (at as usize, self.part(buf.len())?);
        self.bytes.lock()[at..at + part].copy_from_slice(&buf[..part]);
        Ok(part)
    }

    fn sync(&self) -> io::Result<()> {
        Err(ErrorKind::Interrupted.into())
    }
}

#[tokio::test]
async fn what_is_short_or_interrupted_goes_on_but_not_for_ever() {
    let bench = Bench::by_threads();
    let medium = Arc::new(Stuttering { bytes: Mutex::new(vec![0; 65_536]), asked: AtomicU64::new(0) });
    let device = DeviceFile::double(medium.clone());
    let mut buf = IoBuf::zeroed(32_768);
    buf.as_mut_slice().copy_from_slice(&pattern("double", 0, 32_768));
    soon(bench.io.write(&device, 16_384, buf)).await.expect("it goes on");
    assert!(medium.bytes.lock()[16_384..49_152] == pattern("double", 0, 32_768));
    let buf = soon(bench.io.read(&device, 16_384, IoBuf::zeroed(32_768))).await.expect("it goes on");
    assert!(buf.as_slice() == pattern("double", 0, 32_768));
    let failed = soon(bench.io.sync(&device)).await.err();
    assert_eq!(failed.map(|error| error.kind()), Some(ErrorKind::Interrupted), "it was tried often enough");
}
