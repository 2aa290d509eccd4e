/** Whether the kernel of this host is one on which `auto` chooses the kernel engine. */

/** Since 6.1 a VXLAN-GPE device merges what it receives, and the tunnel key names the outer source. */
const oldest = [6, 1] as const;

/**
 * @param release `6.1.0-40-amd64`, of uname(2)
 * @returns why not; undefined where it is one
 */
export function whyTooOld(release: string): string | undefined {
  const [major = 0, minor = 0] = release.split('.').map(part => Number.parseInt(part, 10));
  if (major > oldest[0] || (major === oldest[0] && minor >= oldest[1])) return undefined;
  return `Linux ${release} is older than ${oldest.join('.')}, from which on --engine=auto uses the kernel engine; --engine=kernel uses it all the same`;
}
