/** Runs `tartan version`: what is installed here, part by part. */
import { apiVersion } from '../agent/status.js';
import { version } from '../cli/version.js';
import { messageOf } from '../lib/errors.js';
import { builtFile, native } from '../lib/native.js';
import { print, type Call } from './commands.js';
import { exitStatus, type ExitStatus } from './error.js';

export function showVersion(call: Call): ExitStatus {
  const parts = {
    version,
    node: process.version,
    nodePath: process.execPath,
    native: nativeBuild(),
    dataProcess: builtFile('tartan-datapath'),
    platform: `${process.platform} ${process.arch}`,
  };
  print(call, { apiVersion, kind: 'Version', ...parts }, () =>
    [
      `tartan        ${parts.version}`,
      `Node.js       ${parts.node} (${parts.nodePath})`,
      `native build  ${parts.native}`,
      `data process  ${parts.dataProcess}`,
      `platform      ${parts.platform}`,
      '',
    ].join('\n'),
  );
  return exitStatus.ok;
}

function nativeBuild(): string {
  try {
    return native().build;
  } catch (error) {
    return `not usable: ${messageOf(error)}`;
  }
}
