//! The processor time of a thread, which any other thread may read.

use std::{mem::MaybeUninit, time::Duration};

/// A thread's clock (pthread_getcpuclockid(3)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// Of the thread that asks; `None` where the system has no such clock.
    pub(crate) fn of_this_thread() -> Option<Self> {
        let mut clock = MaybeUninit::uninit();
        // SAFETY: the thread runs, and the clock's id is written to a place that is ours.
        let outcome = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), clock.as_mut_ptr()) };
        // SAFETY: success is said after the id was written.
        (outcome == 0).then(|| Self(unsafe { clock.assume_init() }))
    }

    /// How long the thread has been running on a processor; `None` once it has ended.
    pub(crate) fn read(self) -> Option<Duration> {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the time is written to a place that is ours; the id of a thread that has ended is an error.
        let outcome = unsafe { libc::clock_gettime(self.0, time.as_mut_ptr()) };
        if outcome != 0 {
            return None;
        }
        // SAFETY: success is said after the time was written.
        let time = unsafe { time.assume_init() };
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn another_threads_time_is_read_while_it_runs() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let worker = thread::spawn(move || {
            let clock = ThreadClock::of_this_thread().expect("Linux has one");
            let before = clock.read().expect("it runs");
            // Work that is not optimised away, until the clock has moved.
            let mut sum = 0_u64;
            while clock.read().expect("it runs") < before + Duration::from_millis(2) {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
            }
            tell.send((clock, before)).expect("the test listens");
            let _ = ended.recv();
        });
        let (clock, before) = told.recv().expect("the thread says");
        assert!(clock.read().expect("it waits") >= before + Duration::from_millis(2));
        drop(end);
        worker.join().expect("no panic");
    }
}
