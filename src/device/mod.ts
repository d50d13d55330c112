/**
 * The real devices of VMCI on Linux, without the SDK on top: `/dev/vmci` through {@linkcode VmciDevice}, and the sockets
 * of its host and guests (`AF_VSOCK`) through {@linkcode listenVsockDatagram}, {@linkcode listenVsock} and
 * {@linkcode connectVsock}.
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

export { listenVsockDatagram, type ListenVsockDatagramOptions, VsockDatagramSocket } from "./vsock_datagram.ts";
export {
  connectVsock,
  type ConnectVsockOptions,
  listenVsock,
  type ListenVsockOptions,
  VsockConn,
  type VsockConnType,
  VsockListener,
} from "./vsock_conn.ts";
export { VSOCK_ANY, type VsockAddress, VsockSocket, type VsockType } from "./vsock_socket.ts";
export { localVsockContext, type VsockFamily, vsockFamily, vsockVersion } from "./vsock_family.ts";
export type { VsockOptionName, VsockOptionValue } from "./vsock_option.ts";

export type { WaitOptions } from "../lane/waiters.ts";
export type { ContextRemovedEvent, PeerEvent } from "../event.ts";
export type { ContextId, Handle } from "../handle.ts";
export { VmciError, type VmciErrorInit } from "../error.ts";
export { type ErrorCodeName, ResultCode, type ResultCodeName } from "../result_code.ts";
