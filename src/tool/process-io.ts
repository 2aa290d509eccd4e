/** The tool's world as this process has it. */
import { text } from 'node:stream/consumers';
import { errnoOf } from '../lib/errors.js';
import type { ToolIo, ToolPorts } from './ports.js';

export function openProcessIo(ports: ToolPorts): ToolIo {
  // `tartan leases | head -1` closes the pipe early: nothing is wrong then.
  process.stdout.on('error', error => {
    if (errnoOf(error) !== 'EPIPE') throw error;
    process.exit(0);
  });
  return {
    env: process.env,
    stdout: words => void process.stdout.write(words),
    stderr: words => void process.stderr.write(words),
    stdin: () => text(process.stdin),
    isTty: process.stdout.isTTY === true,
    ports,
  };
}
