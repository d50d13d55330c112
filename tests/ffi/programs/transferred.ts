// Transfers a mapping's buffer away, closes the mapping, and goes on using the buffer.
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { mapShared } from "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";

const fd = createMemfd("transferred", 10_000);
const mapping = mapShared(fd, 10_000);
const other = mapShared(fd, 10_000);
closeDescriptor(fd);
new Uint8Array(mapping.buffer).fill(7);
const moved = structuredClone(mapping.buffer, { transfer: [mapping.buffer] });

const first = mapping.close();
const bytes = new Uint8Array(moved);
const seen = bytes.reduce((sum, byte) => sum + byte, 0);
bytes.fill(1);
const second = new Uint8Array(other.buffer)[9_999];
console.log(first, seen, second, moved.detached);
