/** Paths of options: a relative one is resolved against the working directory, as flannel does. */
import { posix } from 'node:path';

/** @returns the absolute path, without `.` and `..`; undefined for a text that is no path */
export function resolvePath(text: string): string | undefined {
  if (text === '' || /\p{Cc}/u.test(text)) return undefined;
  try {
    return posix.resolve(text);
  } catch {
    // The working directory was removed.
    return undefined;
  }
}
