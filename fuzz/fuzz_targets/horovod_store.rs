//! See `rmpi_fuzz::targets::horovod_store`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::horovod_store(data));
