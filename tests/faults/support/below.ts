/**
 * What is below the library, for players that go there themselves.
 *
 * @module
 */

export * from "../../../ffi/descriptor.ts";
export * from "../../../ffi/file.ts";
export * from "../../../ffi/mapping.ts";
export * from "../../../ffi/memfd.ts";
export * from "../../../ffi/unix_socket.ts";
export { RAW_LANE_SIZE, sealedMemory } from "./raw_client.ts";
