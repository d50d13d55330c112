/**
 * What is said to the discovery service of the SDK, byte by byte: one datagram asks, one answers.
 *
 * Asking: action, number of the message, handle, length of the name, the name and three bytes that are not looked at (a
 * NUL is among them). Answering: the same number, a code, a handle, the length of a text, the text and a NUL. The SDK
 * has three actions. Three more of this library's let a program list names and keep its own alive; a service that does
 * not know them answers GENERIC.
 *
 * @module
 */

import { CONTEXT_RESOURCE, type Handle } from "../handle.ts";
import { MAX_NAME_SIZE } from "../limits.ts";

/** What is asked for. */
export const DsAction = {
  /** What a name stands for. */
  LOOKUP: 0,
  /** To give a handle a name. */
  REGISTER: 1,
  /** To take a name away. */
  UNREGISTER: 2,
  /** Beyond the SDK: the first name in the order of bytes that is not before this one. */
  FIRST: 16,
  /** Beyond the SDK: the first name after this one. */
  NEXT: 17,
  /** Beyond the SDK: the name is this handle's, and whoever says so lives. */
  KEEP: 18,
} as const;

/** The largest message in bytes. */
export const DS_MESSAGE_SIZE = 300;

/**
 * The port of `vmci ds serve`: the letters "VMCI". The SDK's own service is at `1:1`, where on Linux the kernel handles
 * the streams.
 */
export const DS_PORT = 0x564D4349;

/** A question. */
export interface DsRequest {
  /** Of {@linkcode DsAction}. */
  readonly action: number;
  /** Comes back in the answer. */
  readonly message: number;
  /** What the name is for. */
  readonly handle: Handle;
  /** The name's bytes. */
  readonly name: Uint8Array<ArrayBuffer>;
}

/** An answer. */
export interface DsReply {
  /** The question's number. */
  readonly message: number;
  /** A code of the SDK, 0 or below. */
  readonly code: number;
  /** What was looked up; else the invalid handle. */
  readonly handle: Handle;
  /** What is the matter; or, beyond the SDK, the name that was found. */
  readonly text: Uint8Array<ArrayBuffer>;
}

/** Offsets of a question and of an answer; both have their text at the same place. */
const Offset = { action: 0, message: 4, handle: 8, nameLength: 16, text: 20, replyMessage: 0, code: 4 } as const;

/** What a question has beyond its name. */
const REQUEST_OVERHEAD = 24;

/** A question as it is sent. */
export function encodeDsRequest({ action, message, handle, name }: DsRequest): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(REQUEST_OVERHEAD + name.length));
  const view = new DataView(bytes.buffer);
  view.setInt32(Offset.action, action, true);
  view.setInt32(Offset.message, message, true);
  setHandle(view, handle);
  view.setInt32(Offset.nameLength, name.length, true);
  bytes.set(name, Offset.text);
  return bytes;
}

/**
 * A question as it came.
 *
 * @param bytes The datagram's payload.
 * @returns The question, or `undefined` when it is none.
 */
export function decodeDsRequest(bytes: Uint8Array<ArrayBuffer>): DsRequest | undefined {
  if (bytes.length <= Offset.text || bytes.length > DS_MESSAGE_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // The SDK's service trusts the NUL and not the length; so does this one, and wants it.
  const name = textOf(bytes);
  if (name === undefined || name.length > MAX_NAME_SIZE) return undefined;
  return {
    action: view.getInt32(Offset.action, true),
    message: view.getInt32(Offset.message, true),
    handle: handleOf(view),
    name,
  };
}

/** An answer as it is sent. */
export function encodeDsReply({ message, code, handle, text }: DsReply): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(REQUEST_OVERHEAD + text.length + 1));
  const view = new DataView(bytes.buffer);
  view.setInt32(Offset.replyMessage, message, true);
  view.setInt32(Offset.code, code, true);
  setHandle(view, handle);
  view.setInt32(Offset.nameLength, text.length, true);
  bytes.set(text, Offset.text);
  return bytes;
}

/**
 * An answer as it came.
 *
 * @param bytes The datagram's payload.
 * @returns The answer, or `undefined` when it is none.
 */
export function decodeDsReply(bytes: Uint8Array<ArrayBuffer>): DsReply | undefined {
  if (bytes.length <= Offset.text || bytes.length > DS_MESSAGE_SIZE + 1) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = textOf(bytes);
  if (text === undefined) return undefined;
  return {
    message: view.getInt32(Offset.replyMessage, true),
    code: view.getInt32(Offset.code, true),
    handle: handleOf(view),
    text,
  };
}

function textOf(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
  const end = bytes.indexOf(0, Offset.text);
  return end < 0 ? undefined : bytes.slice(Offset.text, end);
}

function setHandle(view: DataView, { context, resource }: Handle): void {
  view.setUint32(Offset.handle, context, true);
  view.setUint32(Offset.handle + 4, resource, true);
}

function handleOf(view: DataView): Handle {
  return { context: view.getUint32(Offset.handle, true), resource: view.getUint32(Offset.handle + 4, true) };
}

/** Whether a handle is one that a name can stand for: it names neither nothing nor a context. */
export function isNameable({ context, resource }: Handle): boolean {
  return context !== 0xFFFFFFFF && resource !== 0xFFFFFFFF && resource !== CONTEXT_RESOURCE;
}
