-- Returns a topic in which {column} is replaced by the value of that column.
CREATE FUNCTION {schema}.topic_of_row(template text, row_now jsonb, trigger_name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    topic text := template;
    name text;
BEGIN
    IF template IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the trigger %s has no topic', trigger_name),
            HINT = 'Its first argument is the topic: publish_row_change(''orders'').';
    END IF;
    IF strpos(template, '{') = 0 THEN
        RETURN template;
    END IF;
    FOR name IN SELECT match[1] FROM regexp_matches(template, '{([^{}]*)}', 'g') AS match LOOP
        IF row_now IS NULL OR NOT row_now ? name THEN
            RAISE undefined_column USING
                MESSAGE = format('the topic of the trigger %s names the column %I, which there is not', trigger_name, name),
                HINT = CASE WHEN row_now IS NULL THEN 'TRUNCATE has no row: give its trigger a topic without columns.'
                            ELSE 'A topic names columns of its table, as in ''orders.{customer_id}''.' END;
        END IF;
        topic := replace(topic, '{' || name || '}', coalesce(row_now ->> name, 'null'));
    END LOOP;
    RETURN topic;
END
$$
