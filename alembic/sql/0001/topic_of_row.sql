-- Returns a topic in which {column} is replaced by the value of that column.
CREATE FUNCTION {schema}.topic_of_row(template text, row_now jsonb, trigger_name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    topic text := '';
    rest text := template;
    parts text[];
BEGIN
    IF template IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the trigger %s has no topic', trigger_name),
            HINT = 'Its first argument is the topic: publish_row_change(''orders'').';
    END IF;
    LOOP
        EXIT WHEN strpos(rest, '{') = 0;
        parts := regexp_match(rest, '^([^{]*){([^{}]*)}(.*)$');
        EXIT WHEN parts IS NULL;
        IF row_now IS NULL OR NOT row_now ? parts[2] THEN
            RAISE undefined_column USING
                MESSAGE = format('the topic of the trigger %s names the column %I, which there is not', trigger_name, parts[2]),
                HINT = CASE WHEN row_now IS NULL THEN 'TRUNCATE has no row: give its trigger a topic without columns.'
                            ELSE 'A topic names columns of its table, as in ''orders.{customer_id}''.' END;
        END IF;
        topic := topic || parts[1] || coalesce(row_now ->> parts[2], 'null');
        rest := parts[3];
    END LOOP;
    RETURN topic || rest;
END
$$
