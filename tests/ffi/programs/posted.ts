// Posts a mapping's buffer to another thread, which reads it all the time, and closes the mapping meanwhile.
import { Worker } from "node:worker_threads";
import { closeDescriptor } from "../../../ffi/descriptor.ts";
import { mapShared } from "../../../ffi/mapping.ts";
import { createMemfd } from "../../../ffi/memfd.ts";

const reader = `
  import { parentPort } from "node:worker_threads";
  parentPort.on("message", (buffer) => {
    const words = new Int32Array(buffer);
    parentPort.postMessage("reading");
    while (Atomics.load(words, 1000) !== 0);
    words.fill(3);
    parentPort.postMessage(Atomics.load(words, 0) - 3);
  });
`;

const fd = createMemfd("posted", 8192);
const mapping = mapShared(fd, 8192);
closeDescriptor(fd);
new Int32Array(mapping.buffer).fill(1);
const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(reader)}`));
let closed: boolean | undefined;
worker.on("message", (message: unknown) => {
  if (message === "reading") {
    closed = mapping.close();
  } else {
    console.log(closed, message);
    worker.terminate();
  }
});
worker.postMessage(mapping.buffer, [mapping.buffer]);
