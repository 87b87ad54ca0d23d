//! See `rmpi_fuzz::targets::data_lanes`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::data_lanes(data));
