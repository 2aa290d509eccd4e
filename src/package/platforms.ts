/** The processors that packages are made for, and how each of the tools calls them. */

export interface Platform {
  /** Debian's name, which stands in the names of the files. */
  readonly debian: 'amd64' | 'arm64';
  /** `process.arch` of Node.js. */
  readonly node: 'x64' | 'arm64';
  /** `uname -m`. */
  readonly machine: 'x86_64' | 'aarch64';
}

export const platforms: readonly Platform[] = [
  { debian: 'amd64', node: 'x64', machine: 'x86_64' },
  { debian: 'arm64', node: 'arm64', machine: 'aarch64' },
];

/** The oldest C library that the programs run with: that of Debian 11 and Ubuntu 20.04. */
export const glibcFloor = '2.31';
