//! Which processors a session's threads may run on: those of phones come in kinds.
//!
//! Work is divided into equal parts, so a thread on a slow processor makes all others wait at every barrier. On Linux and
//! Android the fast ones are found in `/sys` and threads are bound to all of them together, not one to each, so that the
//! scheduler still chooses. Apple's systems have no such call; there a thread says what its work is for, and those for which
//! somebody waits get the fast processors. Whatever the system refuses is left as it was, and can be asked.

/// What a session's threads ask the system for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing.
    #[default]
    Free,
    /// The fast processors. Their number is also the number of threads, unless that is given. The calling thread is bound
    /// while it works for the session; on Apple's systems its class is left to the app.
    Performance,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Nothing was asked for.
    Free,
    /// Threads run on this many processors and no others.
    Processors(usize),
    /// Threads have the class "user-initiated".
    UserInitiated,
    /// Threads run anywhere, for this reason.
    Refused(&'static str),
}

#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
pub(crate) use linux::{Place, fast};

#[cfg(not(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri))))]
pub(crate) use elsewhere::{Place, fast};

#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
mod linux {
    use super::Bound;
    use crate::processors::{Mask, read_at};

    /// Where processors and what they can do are told.
    const ROOT: &[u8] = b"/sys/devices/system/cpu";

    /// Fast processors that this thread may run on; none where all are alike, or nobody tells.
    pub(crate) fn fast() -> Option<usize> {
        fast_of(ROOT, &Mask::own()?).ok().map(|mask| mask.count())
    }

    /// The processors to run on.
    #[derive(Debug)]
    pub(crate) struct Place(Mask);

    impl Place {
        /// The fast processors.
        pub(crate) fn find() -> Result<Self, &'static str> {
            let own = Mask::own().ok_or("the system does not say which processors this thread may use")?;
            fast_of(ROOT, &own).map(Self)
        }

        #[cfg(test)]
        pub(crate) fn of(mask: Mask) -> Self {
            Self(mask)
        }

        /// Binds this thread for good; whether that worked.
        pub(crate) fn bind(&self) -> bool {
            self.0.set()
        }

        /// Binds this thread while the result lives.
        pub(crate) fn here(&self) -> Here {
            Here(Mask::own().filter(|_| self.0.set()))
        }

        pub(crate) fn bound(&self) -> Bound {
            Bound::Processors(self.0.count())
        }
    }

    /// Where a thread may run again when this is dropped.
    #[derive(Debug)]
    pub(crate) struct Here(Option<Mask>);

    impl Drop for Here {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                // Processors that were taken away meanwhile are the system's affair.
                before.set();
            }
        }
    }

    /// The fast ones of `own`.
    ///
    /// The kernel gives processors of several kinds a capacity, of which fast ones have at least half of the largest. Where
    /// it does not, frequencies are all that is known: four fifths, as those of different kinds lie closer together.
    pub(super) fn fast_of(root: &[u8], own: &Mask) -> Result<Mask, &'static str> {
        let capacity = |cpu: usize| number(root, cpu, b"/cpu_capacity");
        let frequency = |cpu: usize| number(root, cpu, b"/cpufreq/cpuinfo_max_freq");
        let fast = at_least(own, capacity, (1, 2)).or_else(|| at_least(own, frequency, (4, 5)));
        fast.ok_or("the system does not tell which processors are fast")
    }

    /// Those whose value is at least this part of the largest; none where a value is missing.
    fn at_least(own: &Mask, value: impl Fn(usize) -> Option<u64>, (part, whole): (u64, u64)) -> Option<Mask> {
        let mut most = 0;
        for cpu in own.iter() {
            most = most.max(value(cpu)?);
        }
        let mut fast = Mask::none();
        for cpu in own.iter() {
            if value(cpu)?.saturating_mul(whole) >= most.saturating_mul(part) {
                fast.add(cpu);
            }
        }
        (fast.count() > 0).then_some(fast)
    }

    /// The number in a file of a processor.
    fn number(root: &[u8], cpu: usize, file: &[u8]) -> Option<u64> {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = cpu;
        while rest > 0 || at == digits.len() {
            at -= 1;
            *digits.get_mut(at)? = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut bytes = [0; 32];
        let text = read_at(&[root, b"/cpu", digits.get(at..)?, file], &mut bytes)?;
        core::str::from_utf8(text).ok()?.trim().parse().ok()
    }
}

#[cfg(not(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri))))]
mod elsewhere {
    use super::Bound;

    /// Fast processors; none where nobody tells.
    pub(crate) fn fast() -> Option<usize> {
        #[cfg(all(feature = "std", target_vendor = "apple"))]
        return apple::fast();
        #[cfg(not(all(feature = "std", target_vendor = "apple")))]
        None
    }

    /// The class to run in.
    #[derive(Debug)]
    pub(crate) struct Place(());

    impl Place {
        /// For work that somebody waits for.
        pub(crate) fn find() -> Result<Self, &'static str> {
            if cfg!(all(feature = "std", target_vendor = "apple")) {
                return Ok(Self(()));
            }
            Err("this system has no call for it")
        }

        /// Puts this thread there for good; whether that worked.
        pub(crate) fn bind(&self) -> bool {
            #[cfg(all(feature = "std", target_vendor = "apple"))]
            return apple::user_initiated();
            #[cfg(not(all(feature = "std", target_vendor = "apple")))]
            false
        }

        /// Leaves this thread as it is.
        pub(crate) fn here(&self) -> Here {
            Here
        }

        pub(crate) fn bound(&self) -> Bound {
            Bound::UserInitiated
        }
    }

    /// Nothing to undo.
    #[derive(Debug)]
    pub(crate) struct Here;

    #[cfg(all(feature = "std", target_vendor = "apple"))]
    mod apple {
        use core::ffi::{c_char, c_int, c_uint, c_void};

        unsafe extern "C" {
            fn pthread_set_qos_class_self_np(class: c_uint, priority: c_int) -> c_int;
            fn sysctlbyname(
                name: *const c_char,
                old: *mut c_void,
                old_bytes: *mut usize,
                new: *mut c_void,
                new_bytes: usize,
            ) -> c_int;
        }

        /// `QOS_CLASS_USER_INITIATED`.
        const USER_INITIATED: c_uint = 0x19;

        pub(super) fn user_initiated() -> bool {
            // SAFETY: changes the calling thread, and takes numbers.
            unsafe { pthread_set_qos_class_self_np(USER_INITIATED, 0) == 0 }
        }

        /// Processors of the first level of performance; systems before iOS 15 and macOS 12 have no such name.
        pub(super) fn fast() -> Option<usize> {
            let (mut n, mut bytes): (c_int, usize) = (0, size_of::<c_int>());
            let name = c"hw.perflevel0.logicalcpu".as_ptr();
            // SAFETY: the name ends with a zero, and the system writes at most `bytes` to `n`.
            let refused = unsafe { sysctlbyname(name, (&raw mut n).cast(), &raw mut bytes, core::ptr::null_mut(), 0) };
            (refused == 0 && bytes == size_of::<c_int>())
                .then_some(n)
                .and_then(|n| usize::try_from(n).ok())
                .filter(|&n| n > 0)
        }
    }
}

#[cfg(all(test, feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
mod tests {
    use super::linux::{Place, fast_of};
    use crate::processors::Mask;
    use std::fs;
    use std::path::PathBuf;
    use std::vec::Vec;

    /// A folder like the kernel's, with one file for each processor.
    struct System(PathBuf);

    impl System {
        fn new(name: &str, file: &str, values: &[&str]) -> Self {
            let root = std::env::temp_dir().join(std::format!("tvlm-cpu-{}-{name}", std::process::id()));
            for (cpu, value) in values.iter().enumerate() {
                let path = root.join(std::format!("cpu{cpu}/{file}"));
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                if !value.is_empty() {
                    fs::write(path, value).expect("written");
                }
            }
            Self(root)
        }

        fn fast(&self, own: &[usize]) -> Result<Vec<usize>, &'static str> {
            let mut mask = Mask::none();
            own.iter().for_each(|&cpu| mask.add(cpu));
            fast_of(self.0.to_str().expect("UTF-8").as_bytes(), &mask).map(|fast| fast.iter().collect())
        }
    }

    impl Drop for System {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn fast_processors_are_those_of_the_kernel() {
        // Four small, four middle, one large: as in a Pixel 8.
        let pixel = ["266\n", "266\n", "266\n", "266\n", "891\n", "891\n", "891\n", "891\n", "1024\n"];
        let all: Vec<usize> = (0..9).collect();
        let system = System::new("capacity", "cpu_capacity", &pixel);
        assert_eq!(system.fast(&all), Ok([4, 5, 6, 7, 8].to_vec()));
        assert_eq!(system.fast(&[0, 1, 5]), Ok([5].to_vec()));
        // Only slow ones are allowed, so they are the fastest.
        assert_eq!(system.fast(&[0, 3]), Ok([0, 3].to_vec()));
        let system =
            System::new("frequency", "cpufreq/cpuinfo_max_freq", &["1800000\n", "1800000\n", "2400000\n", "2850000\n"]);
        assert_eq!(system.fast(&[0, 1, 2, 3]), Ok([2, 3].to_vec()));
        let system = System::new("alike", "cpu_capacity", &["1024"; 3]);
        assert_eq!(system.fast(&[0, 1, 2]), Ok([0, 1, 2].to_vec()));
    }

    #[test]
    fn what_is_not_told_is_a_reason() {
        for (name, values) in [("missing", ["1024", ""]), ("no-number", ["1024", "fast"]), ("empty", ["", ""])] {
            let system = System::new(name, "cpu_capacity", &values);
            assert!(system.fast(&[0, 1]).is_err_and(|reason| reason.contains("does not tell")), "{name}");
        }
        assert!(System::new("nobody", "cpu_capacity", &[]).fast(&[]).is_err());
    }

    #[test]
    fn a_thread_is_where_it_was_afterwards() {
        let before: Vec<usize> = Mask::own().expect("Linux tells").iter().collect();
        let mut first = Mask::none();
        first.add(before[0]);
        let place = Place::of(first);
        {
            let _here = place.here();
            assert_eq!(Mask::own().expect("Linux tells").iter().collect::<Vec<_>>(), before[..1]);
        }
        assert_eq!(Mask::own().expect("Linux tells").iter().collect::<Vec<_>>(), before);
        // A processor that nobody has.
        let mut last = Mask::none();
        last.add(8191);
        assert!(!Place::of(last).bind());
    }
}
