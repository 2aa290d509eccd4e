/** @returns the socket at which the daemon of a run directory is asked */
export function statusSocketPath(runDir: string): string {
  return `${runDir}/tartand.sock`;
}
