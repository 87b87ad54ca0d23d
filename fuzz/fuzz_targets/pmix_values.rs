//! See `rmpi_fuzz::targets::pmix_values`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::pmix_values(data));
