//! See `rmpi_fuzz::targets::rankfile`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::rankfile(data));
