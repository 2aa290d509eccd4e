/** Writes an archive in the ustar format (POSIX.1-1988, "ustar Interchange Format" of pax(1)): plain files only. */

export interface ArchiveFile {
  /** Relative, of 100 bytes of ASCII at most. */
  readonly name: string;
  readonly content: Buffer;
}

const blockBytes = 512;
const longestName = 100;

/** @param timeMs of all files, since 1970 */
export function archiveOf(files: readonly ArchiveFile[], timeMs: number): Buffer {
  const blocks = files.flatMap(({ name, content }) => [headerOf(name, content.length, timeMs), padded(content)]);
  // Two blocks of zeros end an archive.
  return Buffer.concat([...blocks, Buffer.alloc(2 * blockBytes)]);
}

function headerOf(name: string, bytes: number, timeMs: number): Buffer {
  if (!/^[\x21-\x7e]+$/.test(name) || name.length > longestName)
    throw new RangeError(`'${name}' is no name of an archive`);
  const header = Buffer.alloc(blockBytes);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  // The fields by their places: name, mode, uid, gid, size, mtime, checksum, type, magic and version.
  header.write(name, 0, 'latin1');
  header.write(octal(0o600, 7), 100, 'latin1');
  header.write(octal(0, 7), 108, 'latin1');
  header.write(octal(0, 7), 116, 'latin1');
  header.write(octal(bytes, 11), 124, 'latin1');
  header.write(octal(Math.floor(timeMs / 1000), 11), 136, 'latin1');
  header.write('        0', 148, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  // The sum is taken with spaces in its own place.
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((blockBytes - (content.length % blockBytes)) % blockBytes)]);
}
