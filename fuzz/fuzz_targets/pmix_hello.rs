//! See `rmpi_fuzz::targets::pmix_hello`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::pmix_hello(data));
