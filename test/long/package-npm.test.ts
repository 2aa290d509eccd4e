/**
 * The package for npm with Node.js 20, 22 and 24, a host each, without a compiler in PATH. TARTAN_PACKAGES is the directory of
 * the packages.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, realpathSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { nodePackage } from '../../src/package/node-runtime.js';
import { platforms } from '../../src/package/platforms.js';
import { Daemon } from '../support/daemon.js';
import { attempt, findTool, needTool, root, run } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const platform = platforms.find(({ node }) => node === process.arch);
const packages = process.env['TARTAN_PACKAGES'] ?? join(root, '.cache/long-package/first');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const lines = { a: '20', b: '22', c: '24' } as const;
const lab = useLab({ nodes: Object.keys(lines) });

/** What runs on the host beside the Node.js: no gcc, no make, no npm. */
function pathOf(letter: keyof typeof lines): string {
  const bin = join(lab().spaces.directory, letter, 'bin');
  mkdirSync(bin, { recursive: true });
  symlinkSync(nodeOf(letter), join(bin, 'node'));
  for (const name of ['env', 'sh', 'ls']) symlinkSync(needTool('', name), join(bin, name));
  return `${bin}:/usr/sbin:/sbin`;
}

function nodeOf(letter: keyof typeof lines): string {
  const line = lines[letter];
  if (line !== '24') return join(root, `.cache/release/nodes/node_modules/node-${line}/bin/node`);
  if (platform === undefined) throw new Error(`packages are made on x64 and arm64, this is ${process.arch}`);
  const { name, version: found } = nodePackage(root, platform);
  const archive = join(root, `.cache/node/${name}-${found}.tgz`);
  execFileSync('tar', ['-x', '-z', '-f', archive, '-C', lab().spaces.directory, 'package/bin/node']);
  return join(lab().spaces.directory, 'package/bin/node');
}

test.each(Object.entries(lines) as (readonly [keyof typeof lines, string])[])(
  'host %s: it is installed with Node.js %s, without a network and scripts, and tartand is ready',
  async (letter, line) => {
    const host = lab().node(letter);
    const PATH = pathOf(letter);
    const environment = { PATH, npm_config_cache: join(lab().spaces.directory, letter, 'npm') };
    for (const name of ['gcc', 'cc', 'clang', 'make', 'npm'])
      expect((await attempt([needTool('', 'sh'), '-c', `command -v ${name}`], { environment })).status).not.toBe(0);
    const prefix = join(lab().spaces.directory, letter, 'prefix');
    const npm = realpathSync(findTool('npm') ?? '');
    const install = ['install', '-g', '--ignore-scripts', '--offline', '--no-audit', '--no-fund', '--prefix', prefix];
    const command = [nodeOf(letter), npm, ...install, join(packages, `tartan-${version}.tgz`)];
    await run(host.spaces.inside(letter, command), { environment });

    const parts = JSON.parse(
      await run([join(prefix, 'bin/tartan'), 'version', '-o', 'json'], { environment }),
    ) as object;
    expect(parts).toMatchObject({
      version,
      node: expect.stringMatching(`^v${line}\\.`),
      native: expect.stringMatching(/^[0-9a-f]{12}$/),
    });
    const tartand = host.spaces.inside(letter, [join(prefix, 'bin/tartand'), ...host.flags()]);
    const daemon = new Daemon(tartand, join(host.spaces.directory, `${letter}.log`), environment);
    await daemon.waitForEvent('daemon.ready');
    await host.addressContainer();
    expect(
      JSON.parse(
        await run([join(prefix, 'bin/tartan'), 'status', '-o', 'json', '--run-dir', host.runDir], { environment }),
      ),
    ).toMatchObject({
      health: { state: 'ok' },
    });
  },
);

test('containers of the three hosts reach each other', async () => {
  await lab().waitForRoutes();
  for (const [from, to] of lab().pairs) expect(await from.pingFromContainer(to.containerAddress, 2)).toBe(true);
});
