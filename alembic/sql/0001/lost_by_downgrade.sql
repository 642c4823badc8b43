-- What removing the tables loses, a line each.
SELECT format('messages in the log: %s', count(*))
FROM {schema}.message WHERE expires_at > clock_timestamp() AND octet_length(payload) > 0 HAVING count(*) > 0
UNION ALL
SELECT format('transactions whose messages are still to be delivered: %s', count(DISTINCT transaction))
FROM {schema}.outbox HAVING count(*) > 0
UNION ALL
SELECT format('work queues in groups: %s', count(*)) FROM {schema}.member HAVING count(*) > 0
UNION ALL
SELECT format('topics with a retention of their own: %s', count(*)) FROM {schema}.kept_topic HAVING count(*) > 0
UNION ALL
SELECT format('the retention that was set for the log: %s', chosen) FROM {schema}.log WHERE chosen > '0'
