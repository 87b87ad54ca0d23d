//! See `rmpi_fuzz::targets::rank_requests`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::rank_requests(data));
