-- Makes the log keep messages to some topics for so many seconds, from now on; 0 ends that. `pattern` is a topic or, with
-- '*' at its end, the beginning of topics.
CREATE FUNCTION {schema}.keep_topics_for(pattern text, prefix text, seconds double precision) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- its caller need not be able to lock `log_state`
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted constant text := {schema}.topic_address(rtrim(pattern, '*') || CASE WHEN pattern = '*' THEN 'x' ELSE '' END, prefix);
    beginning constant text := CASE WHEN pattern = '*' THEN left(wanted, -1) ELSE wanted END;
BEGIN
    -- rotate() holds this lock: no slot is emptied without these topics and says afterwards that nothing of them is gone.
    PERFORM FROM {schema}.log_state FOR UPDATE;
    IF seconds <= 0 THEN
        DELETE FROM {schema}.kept_topic AS k WHERE k.address = beginning AND k.is_pattern = (right(pattern, 1) = '*');
        RETURN;
    END IF;
    INSERT INTO {schema}.kept_topic (address, is_pattern, retention, gone_until, gone_at)
    SELECT beginning, right(pattern, 1) = '*', make_interval(secs => seconds), coalesce(s.gone_until, 0), coalesce(s.gone_at, '-infinity')
    FROM {schema}.log LEFT JOIN {schema}.log_state AS s ON true
    ON CONFLICT (address, is_pattern) DO UPDATE SET retention = EXCLUDED.retention;
END
$$
