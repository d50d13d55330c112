/** Requests of /dev/vmci written by hand, byte by byte: what the driver does, whatever the library thinks of it. */

import { VmciDevice, VmciError } from "@vmci/vmci/device";

/** Offsets and values of a structure: 2, 4 or 8 bytes. */
export type Field = readonly [offset: number, size: 2 | 4 | 8, value: number | bigint];

/** A structure of the given size. */
export function structure(size: number, ...fields: Field[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(size));
  const view = new DataView(bytes.buffer);
  for (const [offset, width, value] of fields) {
    if (width === 2) view.setUint16(offset, Number(value), true);
    else if (width === 4) view.setUint32(offset, Number(value), true);
    else view.setBigUint64(offset, BigInt(value), true);
  }
  return bytes;
}

/** A signed number in a structure. */
export function int(bytes: Uint8Array<ArrayBuffer>, offset: number): number {
  return new DataView(bytes.buffer).getInt32(offset, true);
}

/** Makes a request: what the driver returned, or the name of its error. */
export function raw(device: VmciDevice, request: number, bytes: Uint8Array<ArrayBuffer> | null): number | string {
  try {
    return device.unsafeRequest(request, bytes);
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    return (error.cause as { code: string }).code;
  }
}

/** A device that has announced a version, which may be no real one, and is no context. */
export function announced(version: number): VmciDevice {
  const device = VmciDevice.open({ version: null });
  raw(device, 0x7A7, structure(4, [0, 4, version >>> 0]));
  return device;
}

/** A device that is a context. */
export function context(id: number, options: { restricted?: boolean; version?: number } = {}): VmciDevice {
  const device = VmciDevice.open(options.version === undefined ? {} : { version: options.version });
  device.initContext({ context: id, exact: true, restricted: options.restricted });
  return device;
}

/** The code of the library's error, or what the call gave. */
export function codeOf<T>(act: () => T): T | string {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    return error.code;
  }
}

/** As {@linkcode codeOf}, for what is awaited. */
export async function codeOfAsync<T>(act: () => Promise<T>): Promise<T | string> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    return error.code;
  }
}

/** Bytes that tell where they are. */
export function pattern(size: number, seed = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = i * 31 + seed;
  return bytes;
}
