// Stores through a read-only mapping, which ends the process.
import { mapReadOnly } from "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";

new Uint8Array(mapReadOnly(createMemfd("read-only", 4096), 4096).buffer)[0] = 1;
