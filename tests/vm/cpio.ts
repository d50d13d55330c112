/**
 * An archive that the kernel unpacks as its first file system: cpio in the "newc" format (kernel documentation,
 * driver-api/early-userspace/buffer-format). Several of them one after the other are unpacked one over the other.
 *
 * @module
 */

const DIRECTORY = 0o040000;
const FILE = 0o100000;
const SYMLINK = 0o120000;

/** The kernel finds the next archive after zeroes up to any multiple of 4; 512 is what cpio itself writes. */
const BLOCK = 512;

/** Files for a guest; everything in it belongs to root. */
export class Archive {
  readonly #parts: Uint8Array<ArrayBuffer>[] = [];
  readonly #directories = new Set<string>();
  #inode = 0;

  /**
   * Adds a directory, and those above it that are not there.
   *
   * @param path The path in the guest, without a slash at its start.
   * @param mode Its permission bits.
   */
  directory(path: string, mode = 0o755): void {
    if (path === "" || this.#directories.has(path)) return;
    const above = path.lastIndexOf("/");
    if (above > 0) this.directory(path.slice(0, above));
    this.#directories.add(path);
    this.#add(path, DIRECTORY | mode, new Uint8Array());
  }

  /**
   * Adds a file, and the directories above it that are not there.
   *
   * @param path The path in the guest, without a slash at its start.
   * @param content What is in it.
   * @param mode Its permission bits.
   */
  file(path: string, content: string | Uint8Array<ArrayBuffer>, mode = 0o644): void {
    this.directory(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    this.#add(path, FILE | mode, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }

  /**
   * Adds a symbolic link.
   *
   * @param path The path in the guest, without a slash at its start.
   * @param target Where it leads.
   */
  link(path: string, target: string): void {
    this.directory(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    this.#add(path, SYMLINK | 0o777, new TextEncoder().encode(target));
  }

  /**
   * Adds a file or a folder of this machine with all that is in it.
   *
   * @param from Its path here.
   * @param to Its path in the guest.
   * @param leaveOut Names that are left out wherever they are.
   */
  copy(from: string, to: string, leaveOut: ReadonlySet<string> = new Set()): void {
    const status = Deno.statSync(from);
    if (!status.isDirectory) {
      this.file(to, Deno.readFileSync(from), (status.mode ?? 0o644) & 0o777);
      return;
    }
    this.directory(to);
    for (const { name } of Deno.readDirSync(from)) {
      if (!leaveOut.has(name)) this.copy(`${from}/${name}`, `${to}/${name}`, leaveOut);
    }
  }

  /**
   * Writes the archive.
   *
   * @param path Where to.
   * @param append Whether it is written behind what is there.
   */
  write(path: string, append = false): void {
    this.#add("TRAILER!!!", 0, new Uint8Array());
    const size = this.#parts.reduce((sum, part) => sum + part.length, 0);
    using file = Deno.openSync(path, { write: true, create: true, append, truncate: !append });
    for (const part of [...this.#parts, new Uint8Array(-size & (BLOCK - 1))]) {
      for (let at = 0; at < part.length;) at += file.writeSync(part.subarray(at));
    }
  }

  #add(path: string, mode: number, content: Uint8Array<ArrayBuffer>): void {
    const name = new TextEncoder().encode(path + "\0");
    // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    const fields = [++this.#inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
    const header = "070701" + fields.map((field) => field.toString(16).padStart(8, "0")).join("");
    this.#parts.push(padded(new TextEncoder().encode(header), name), padded(content));
  }
}

/** Bytes one after the other, with zeroes up to a multiple of 4. */
function padded(...pieces: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const bytes = new Uint8Array(size + (-size & 3));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
