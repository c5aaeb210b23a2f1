//! The process that was current at an event.

use std::collections::HashSet;

/// Returns the threads of process 1.
pub(crate) fn first_process() -> HashSet<u32> {
    let tasks = std::fs::read_dir("/proc/1/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the current thread of a line of the event `name`, such as `  thread-42  [001] b.s3. 1.2: name: …`. The name of
/// the thread may contain any characters.
pub(crate) fn current(line: &str, name: &str) -> Option<u32> {
    let (before, _) = line.split_once(&format!(" {name}: "))?;
    let (task, _) = before.rsplit_once(" [")?;
    task.trim_end().rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_thread_is_found_behind_any_name() {
        let rest = "[001] b.s3.  12.5: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP";
        for (task, pid) in
            [("          server-42     ", 42), ("   a-1 [000] b-7  ", 7), ("  <idle>-0       ", 0)]
        {
            assert_eq!(current(&format!("{task}{rest}"), "inet_sock_set_state"), Some(pid), "{task}");
        }
        assert_eq!(current("# tracer: nop", "inet_sock_set_state"), None);
    }
}
