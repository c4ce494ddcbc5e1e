#![no_main]

tracer_fuzz::fuzz!(frames);
