/** etcd releases with known holes in authentication (CVE-2026-44283 and older): worth one line to the operator. */
const fixedPatch: ReadonlyMap<string, number> = new Map([
  ['3.4', 44],
  ['3.5', 30],
  ['3.6', 11],
]);

/** @returns the release to upgrade to, undefined when the version is not known to be affected */
export function authFixFor(version: string): string | undefined {
  const [, minor, patch] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? [];
  const fixed = fixedPatch.get(minor ?? '');
  return fixed !== undefined && Number(patch) < fixed ? `${minor}.${fixed}` : undefined;
}
