#![no_main]

tracer_fuzz::fuzz!(selectors);
