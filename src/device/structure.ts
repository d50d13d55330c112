/**
 * Structures of C in bytes: fields by name at offsets, little-endian.
 *
 * @module
 */

import type { Handle } from "../handle.ts";

/** The types a field can have, and what they are here. */
export interface FieldTypes {
  /** An unsigned 16-bit number. */
  u16: number;
  /** An unsigned 32-bit number. */
  u32: number;
  /** A signed 32-bit number. */
  i32: number;
  /** An unsigned 64-bit number. */
  u64: bigint;
  /** A context and a resource, 32 bits each. */
  handle: Handle;
  /** 256 bytes of text with a NUL behind it. */
  name: string;
}

/** A structure's form. */
export interface Layout {
  /** Its size in bytes, padding included. */
  readonly size: number;
  /** Its fields: the offset and the type. */
  readonly fields: { readonly [name: string]: readonly [offset: number, type: keyof FieldTypes] };
}

/** The values of a structure's fields. */
export type Values<L extends Layout> = { [N in keyof L["fields"]]: FieldTypes[L["fields"][N][1]] };

const NAME_SIZE = 256;

/** A structure. */
export class Structure<L extends Layout> {
  /** What the driver gets and fills; what no field covers is zero. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #layout: L;
  readonly #view: DataView<ArrayBuffer>;

  /**
   * Makes a structure.
   *
   * @param layout Its form.
   * @param values Its fields; those left out are zero.
   */
  constructor(layout: L, values: Partial<Values<L>>) {
    this.#layout = layout;
    this.bytes = new Uint8Array(new ArrayBuffer(layout.size));
    this.#view = new DataView(this.bytes.buffer);
    for (const name of Object.keys(values)) this.set(name, values[name]!);
  }

  /**
   * A field.
   *
   * @param name Its name.
   * @returns Its value.
   */
  get<N extends keyof L["fields"] & string>(name: N): Values<L>[N] {
    const [offset, type] = this.#layout.fields[name]!;
    return read(this.#view, offset, type) as Values<L>[N];
  }

  /**
   * Sets a field.
   *
   * @param name Its name.
   * @param value Its value.
   */
  set<N extends keyof L["fields"] & string>(name: N, value: Values<L>[N]): void {
    const [offset, type] = this.#layout.fields[name]!;
    write(this.#view, offset, type, value);
  }
}

function read(view: DataView<ArrayBuffer>, offset: number, type: keyof FieldTypes): FieldTypes[keyof FieldTypes] {
  switch (type) {
    case "u16":
      return view.getUint16(offset, true);
    case "u32":
      return view.getUint32(offset, true);
    case "i32":
      return view.getInt32(offset, true);
    case "u64":
      return view.getBigUint64(offset, true);
    case "handle":
      return { context: view.getUint32(offset, true), resource: view.getUint32(offset + 4, true) };
    case "name": {
      const bytes = new Uint8Array(view.buffer, offset, NAME_SIZE);
      const end = bytes.indexOf(0);
      return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
    }
  }
}

function write(view: DataView<ArrayBuffer>, offset: number, type: keyof FieldTypes, value: unknown): void {
  switch (type) {
    case "u16":
      return view.setUint16(offset, value as number, true);
    case "u32":
      return view.setUint32(offset, value as number, true);
    case "i32":
      return view.setInt32(offset, value as number, true);
    case "u64":
      return view.setBigUint64(offset, value as bigint, true);
    case "handle": {
      const { context, resource } = value as Handle;
      view.setUint32(offset, context, true);
      return view.setUint32(offset + 4, resource, true);
    }
    case "name": {
      const bytes = new Uint8Array(view.buffer, offset, NAME_SIZE).fill(0);
      // The last byte stays the NUL.
      new TextEncoder().encodeInto(value as string, bytes.subarray(0, NAME_SIZE - 1));
    }
  }
}
