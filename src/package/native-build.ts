/** Compiles the addon and the data process for a processor and the glibc floor. Debian's gcc knows one glibc only. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { glibcFloor, type Platform } from './platforms.js';
import { run } from './run.js';
import type { Tree } from './tree.js';

/**
 * @param cache the directory that set-up fills; objects are kept there for the next time
 * @throws Error when set-up has not unpacked the compiler
 */
export function buildNative(root: string, cache: string, platform: Platform, tree: Tree, into: string): void {
  const zig = join(cache, 'zig/ziglang/zig');
  if (!existsSync(zig)) throw new Error(`${zig} is missing: run test/support/setup.sh package`);
  const work = join(cache, 'package', platform.debian);
  const target = `${platform.machine}-linux-gnu.${glibcFloor}`;
  run(
    'make',
    [
      '-s',
      '-C',
      join(root, 'native'),
      `CC=${zig} cc -target ${target} -ffile-prefix-map=${root}=. -Wl,--strip-all`,
      `machine=${platform.machine}`,
      `DIST=${work}/dist`,
      `BUILD=${work}/build`,
    ],
    { ZIG_GLOBAL_CACHE_DIR: join(cache, 'package/zig'), ZIG_LOCAL_CACHE_DIR: join(cache, 'package/zig') },
  );
  tree.copy(`${work}/dist/tartan.node`, join(into, 'tartan.node'));
  tree.copy(`${work}/dist/tartan-datapath`, join(into, 'tartan-datapath'), 0o755);
}
