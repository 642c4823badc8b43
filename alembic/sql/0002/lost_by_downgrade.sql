-- What going back to revision 0001 loses, a line each.
SELECT 'the log is durable, and becomes fast: a crash of the server takes its messages. Everybody waits while logged'
       ' tables are copied, unless `pgchannels durability fast` is run before'
FROM {schema}.durability WHERE chosen = 'durable'
