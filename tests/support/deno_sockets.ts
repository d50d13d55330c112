/**
 * Deno makes a pair of sockets for signals when somebody first listens to one, or by itself half a second after a
 * process began. So that nobody is taken to have left it open, it is made now.
 */
export function openWhatDenoOpens(): void {
  const ignore = () => {};
  Deno.addSignalListener("SIGHUP", ignore);
  Deno.removeSignalListener("SIGHUP", ignore);
}
