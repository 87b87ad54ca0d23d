//! See `rmpi_fuzz::targets::horovod_registration`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::horovod_registration(data));
