#![no_main]

tracer_fuzz::fuzz!(config_json);
