/**
 * The real devices of VMCI on Linux, without the SDK on top: `/dev/vmci` through {@linkcode VmciDevice}.
 *
 * @example
 * ```ts ignore
 * import { VmciDevice } from "@vmci/vmci/device";
 *
 * using device = VmciDevice.open();
 * console.log(`context ${device.initContext()}`);
 * ```
 *
 * @module
 */

export { type CheckpointKind, type InitContextOptions, type OpenDeviceOptions, VmciDevice } from "./vmci_device.ts";
export type { DeviceDatagram, DeviceEvent, OtherEvent } from "./device_datagram.ts";
export { DeviceStream, type StreamAddress } from "./device_stream.ts";
export { type ConnectOptions, StreamListener } from "./stream_control.ts";
export { NotifyByte } from "./notify_byte.ts";
export { type PeerState, QueuePair, type QueuePairOptions, type QueuePairSignals } from "./queue_pair.ts";
export { queuePairMemorySize } from "./queue_ring.ts";
export { formatVersion, VmciRequest, VmciVersion } from "./requests.ts";
export { type DatagramProcessOptions, type DeviceRegion, WorkstationSixRequests } from "./workstation_six.ts";

export type { WaitOptions } from "../lane/waiting.ts";
export type { ContextRemovedEvent, PeerEvent } from "../event.ts";
export type { ContextId, Handle } from "../handle.ts";
export { VmciError, type VmciErrorInit } from "../error.ts";
export { type ErrorCodeName, ResultCode, type ResultCodeName } from "../result_code.ts";
